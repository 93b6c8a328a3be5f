"""Options that several commands share: one name, one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

#: Marks the option of a file that a command writes; what exists is refused before any work.
WRITTEN = "written"

# --- every command: celldit.cli.command adds them --------------------------------------------

Debug = Annotated[
    bool, typer.Option("--debug", envvar="CELLDIT_DEBUG", help="Show the traceback of an error.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]

# --- what goes in and out ---------------------------------------------------------------------

ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder written by celldit train.")
]
Screen = Annotated[Path, typer.Argument(metavar="DATA.h5ad", help="Cells with raw counts.")]
CellsOutput = Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad, .zarr).")]
AnnDataOutput = Annotated[
    Path, typer.Option("--output", "-o", help="File to write (.h5ad)."), WRITTEN
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
Config = Annotated[
    Path | None, typer.Option(help="TOML file with these settings and those of training.")
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
    typer.Option("--context", help="Context; repeat for several.", show_default="all"),
]
Dose = Annotated[str | None, typer.Option(help='Dose, a number or one for each part ("1+0.5").')]
Time = Annotated[float | None, typer.Option(help="Time of the cells, where the data have times.")]
Target = typer.Option(
    metavar="[NAME=]QUERY", help="State to reach: a query of obs, and a name for it."
)
MinCells = Annotated[int, typer.Option(help="Least cells of a condition.")]
MaxCells = Annotated[int, typer.Option(help="Most control cells that are looked at.")]
MinOverlap = Annotated[
    float | None,
    typer.Option(help="Least share of its genes that the data must have.", show_default="0.5"),
]

# --- how it is computed -----------------------------------------------------------------------

Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
OptionalSeed = Annotated[
    int | None, typer.Option(help="Seed of everything random.", show_default="0")
]
Solver = Annotated[
    str | None,
    typer.Option(help="euler, heun or rk4.", show_default="heun; euler for --sampler edit"),
]
Steps = Annotated[int, typer.Option(help="Steps of the solver.")]
Grid = Annotated[
    Literal["uniform", "quadratic", "cosine"], typer.Option(help="How the steps lie in time.")
]
GuidanceInterval = Annotated[
    tuple[float, float], typer.Option(metavar="FROM TO", help="Times between which guidance works.")
]
Guidance = Annotated[float, typer.Option(help="Strength of guidance; 1 is none.")]
BatchSize = Annotated[int, typer.Option(help="Cells at a time.")]
Device = Annotated[str, typer.Option(help="Where a large network computes: cpu, cuda or cuda:1.")]
MaxEpochs = Annotated[
    int | None, typer.Option(help="Most epochs of each stage.", show_default="by the data")
]
Accelerator = Annotated[
    str | None, typer.Option(help="cpu, gpu, ... (Lightning).", show_default="auto")
]
Devices = Annotated[
    str | None, typer.Option(help="Number of devices (Lightning).", show_default="auto")
]
Strategy = Annotated[
    str | None, typer.Option(help="ddp, fsdp, ... (Lightning).", show_default="auto")
]
Nodes = Annotated[
    int | None, typer.Option(help="Number of machines (Lightning).", show_default="1")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for checkpoints; the same command goes on from the last one."
    ),
]
CheckpointMinutes = Annotated[float, typer.Option(help="Minutes between two checkpoints.")]

# --- what the columns of the data mean ----------------------------------------------------------


def _column(help: str, metavar: str | None = "COLUMN") -> Any:
    return typer.Option(metavar=metavar, help=help, rich_help_panel="What the data mean")


CountsLayer = Annotated[
    str | None, _column("Layer of the data with raw counts, if not X.", "LAYER")
]
#: By the name of the option; the argument of ``setup_anndata`` is that of :data:`ARGUMENTS`.
COLUMNS: dict[str, Any] = {
    "perturbation_key": Annotated[str | None, _column("Column with the perturbation.")],
    "control": Annotated[
        list[str] | None, _column("Label of unperturbed cells; repeat for several.", "LABEL")
    ],
    "covariate_key": Annotated[
        list[str] | None, _column("Column of the cell's context; repeat for several.")
    ],
    "size_factor_key": Annotated[str | None, _column("Column with library sizes.")],
    "counts_layer": CountsLayer,
    "dose_key": Annotated[str | None, _column("Column with doses.")],
    "time_key": Annotated[str | None, _column("Column with times.")],
    "perturbation_sep": Annotated[str | None, _column("What joins two perturbations.", None)],
}
#: Those of a screen without doses and times.
SCREEN = ("perturbation_key", "control", "covariate_key", "size_factor_key", "counts_layer")
ARGUMENTS = {name: name for name in COLUMNS} | {"covariate_key": "covariate_keys"}


def read_dose(dose: str | None) -> float | str | None:
    """A number where the text is one."""
    try:
        return None if dose is None else float(dose)
    except ValueError:
        return dose
