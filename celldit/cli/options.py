"""Options that several commands share: one name, one meaning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

#: Marks the option of a file that a command writes; what exists is refused before any work.
WRITTEN = "written"
#: Marks one of cells, which must have this ending.
H5AD = ".h5ad"
#: Options that every day needs nothing of; ``--help`` shows them in a box of their own.
EXPERT = {
    "accelerator", "autoencoder", "batch_size", "checkpoint", "checkpoint_minutes", "debug",
    "device", "devices", "dit", "engine", "grid", "guidance", "guidance_interval", "key_added",
    "latent", "max_cells", "min_overlap", "n_avg", "n_steps", "nodes", "print_config", "sampler",
    "shard", "solver", "strategy", "t_start", "tokenizer", "train_autoencoder",
}  # fmt: skip


def _read_dose(dose: str | None) -> Any:
    """A number where the text is one."""
    try:
        return None if dose is None else float(dose)
    except ValueError:
        return dose


# --- every command: celldit.cli.command adds them --------------------------------------------

SHARED = {
    "overwrite": Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")],
    "as_json": Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, nothing else.")
    ],
    "debug": Annotated[
        bool,
        typer.Option("--debug", envvar="CELLDIT_DEBUG", help="Show the traceback of an error."),
    ],
}

# --- what goes in and out ---------------------------------------------------------------------

ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder written by celldit train.")
]
Screen = Annotated[Path, typer.Argument(metavar="DATA.h5ad", help="Cells with raw counts.")]
Predicted = Annotated[
    Path, typer.Argument(metavar="PREDICTED.h5ad", help="What celldit predict wrote.")
]
CellsOutput = Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad, .zarr).")]
AnnDataOutput = Annotated[
    Path, typer.Option("--output", "-o", help="File to write (.h5ad)."), WRITTEN, H5AD
]
TableOutput = Annotated[
    Path, typer.Option("--output", "-o", help="Table to write (.csv)."), WRITTEN
]
Table = Annotated[
    Path | None, typer.Option("--output", "-o", help="Table to write (.csv)."), WRITTEN
]
Figure = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Figure to draw (.pdf, .png, .svg)."),
    WRITTEN,
]
ControlCells = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Measured control cells, if the data have none."),
]

# --- what is asked ----------------------------------------------------------------------------

_LABELS = "Label; repeat for several."
Perturbations = Annotated[
    list[str] | None,
    typer.Option("--perturbation", "-p", metavar="LABEL", help=_LABELS, show_default="all"),
]
NamedPerturbations = Annotated[
    list[str], typer.Option("--perturbation", "-p", metavar="LABEL", help=_LABELS)
]
Contexts = Annotated[
    list[str] | None,
    typer.Option(
        "--context", metavar="NAME", help="Context; repeat for several.", show_default="all"
    ),
]
Dose = Annotated[
    str | None,
    typer.Option(callback=_read_dose, help='Dose, a number or one for each part ("1+0.5").'),
]
Time = Annotated[float | None, typer.Option(help="Time of the cells, where the data have times.")]
Target = typer.Option(
    metavar="[NAME=]QUERY", help="State to reach: a query of obs, and a name for it."
)
MinCells = Annotated[int, typer.Option(help="Least cells of a condition.")]
MaxCells = Annotated[int, typer.Option(help="Most control cells that are looked at.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
BatchSize = Annotated[int, typer.Option(help="Cells at a time.")]
Device = Annotated[str, typer.Option(help="Where a large network computes: cpu, cuda or cuda:1.")]
Config = Annotated[
    Path | None, typer.Option(help="TOML file with these settings and those of training.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for checkpoints; the same command goes on from the last one."
    ),
]
CheckpointMinutes = Annotated[float, typer.Option(help="Minutes between two checkpoints.")]

# --- groups: each option with its default; a command gets those that were given ---------------

Group = Mapping[str, tuple[Any, Any]]
WHEN: Group = {"dose": (Dose, None), "time": (Time, None)}
DRAWN: Group = {"batch_size": (BatchSize, 512), "seed": (Seed, 0)}
SAMPLING: Group = {
    **WHEN,
    "solver": (
        Annotated[
            str | None,
            typer.Option(help="euler, heun or rk4.", show_default="heun; euler for --sampler edit"),
        ],
        None,
    ),
    "n_steps": (Annotated[int, typer.Option(help="Steps of the solver.")], 8),
    "grid": (
        Annotated[
            Literal["uniform", "quadratic", "cosine"],
            typer.Option(help="How the steps lie in time."),
        ],
        "uniform",
    ),
    "guidance": (Annotated[float, typer.Option(help="Strength of guidance; 1 is none.")], 1.0),
    "guidance_interval": (
        Annotated[
            tuple[float, float],
            typer.Option(metavar="FROM TO", help="Times between which guidance works."),
        ],
        (0.0, 1.0),
    ),
    **DRAWN,
}


def _setting(kind: Any, help: str, default: str | bool = False, metavar: str | None = None) -> Any:
    option = typer.Option(metavar=metavar, help=help, show_default=default)
    return Annotated[kind, option], None


#: Settings of training and fine-tuning, as :class:`celldit.cli.settings.TrainSettings` has them.
TRAINING: Group = {
    "max_epochs": _setting(int | None, "Most epochs of each stage.", "by the data"),
    "seed": _setting(int | None, "Seed of everything random.", "0"),
    "min_overlap": _setting(
        float | None, "Least share of its genes that the data must have.", "0.5"
    ),
    "accelerator": _setting(str | None, "cpu, gpu, ... (Lightning).", "auto"),
    "devices": _setting(str | None, "Number of devices (Lightning).", "auto"),
    "strategy": _setting(str | None, "ddp, fsdp, ... (Lightning).", "auto"),
    "nodes": _setting(int | None, "Number of machines (Lightning).", "1"),
}
#: Settings of a model that is trained from the start.
MODEL: Group = {
    "tokenizer": _setting(
        str | None,
        "gene_sets, modules, genes or ranks.",
        "gene_sets, and modules where no set has the genes",
    ),
    "latent": _setting(str | None, "pca, the only one."),
    "autoencoder": _setting(
        str | None, "Folder of a model whose autoencoder to start from.", metavar="MODEL"
    ),
    "train_autoencoder": (
        Annotated[
            bool | None,
            typer.Option(
                "--train-autoencoder/--keep-autoencoder",
                help="Whether it is trained further.",
                show_default="--train-autoencoder",
            ),
        ],
        None,
    ),
    "features": _setting(
        list[str] | None,
        "What is known of perturbations, for those never seen: reactome, hallmark, expression, "
        "go, a .gmt file, or a .csv, .parquet, .npy, .npz or .h5ad with a row for each, or of "
        "edges of a network; repeat for several.",
        metavar="SOURCE",
    ),
    "effects": _setting(
        list[str] | None,
        "Effects that others measured, of celldit effects-table or in rows (.h5ad, .csv, "
        ".parquet); repeat for several.",
        metavar="TABLE",
    ),
    "dit": _setting(str | None, "Size of the network: S, B, L or XL.", "S"),
}

# --- what the columns of the data mean ----------------------------------------------------------


def _column(help: str, metavar: str | None = "COLUMN", kind: Any = str | None) -> Any:
    return Annotated[
        kind, typer.Option(metavar=metavar, help=help, rich_help_panel="What the data mean")
    ]


CountsLayer = _column("Layer of the data with raw counts, if not X.", "LAYER")
#: By the name of the option; the argument of ``setup_anndata`` is that of :data:`ARGUMENTS`.
COLUMNS: dict[str, Any] = {
    "perturbation_key": _column("Column with the perturbation."),
    "control": _column(
        "Label of unperturbed cells; repeat for several.", "LABEL", list[str] | None
    ),
    "covariate_key": _column(
        "Column of the cell's context; repeat for several.", kind=list[str] | None
    ),
    "size_factor_key": _column("Column with library sizes."),
    "counts_layer": CountsLayer,
    "dose_key": _column("Column with doses."),
    "time_key": _column("Column with times."),
    "perturbation_sep": _column("What joins two perturbations.", None),
}
#: Those of a screen without doses and times.
SCREEN = ("perturbation_key", "control", "covariate_key", "size_factor_key", "counts_layer")
ARGUMENTS = {name: name for name in COLUMNS} | {"covariate_key": "covariate_keys"}
