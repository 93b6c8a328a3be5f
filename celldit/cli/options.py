"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Debug = Annotated[
    bool, typer.Option("--debug", envvar="CELLDIT_DEBUG", help="Show the traceback of an error.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder written by celldit train.")
]
Solver = Annotated[str, typer.Option(help="euler, heun or rk4.")]
Steps = Annotated[int, typer.Option(help="Steps of the solver.")]
Grid = Annotated[
    Literal["uniform", "quadratic", "cosine"], typer.Option(help="How the steps lie in time.")
]
GuidanceInterval = Annotated[
    tuple[float, float], typer.Option(metavar="FROM TO", help="Times between which guidance works.")
]
Guidance = Annotated[float, typer.Option(help="Strength of guidance; 1 is none.")]
BatchSize = Annotated[int, typer.Option(help="Cells at a time.")]
CountsLayer = Annotated[
    str | None, typer.Option(metavar="LAYER", help="Layer of the data with raw counts, if not X.")
]
PerturbationKey = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column with the perturbation.")
]
CovariateKey = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Column of the cell's context; repeat for several."),
]
SizeFactorKey = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column with library sizes.")
]
ControlLabel = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL", help="Label of unperturbed cells; repeat for several."),
]
Perturbations = Annotated[
    list[str] | None,
    typer.Option("--perturbation", "-p", help="Label; repeat for several; all by default."),
]
Contexts = Annotated[
    list[str] | None,
    typer.Option("--context", help="Context; repeat for several; all by default."),
]
CellsFile = Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad, .zarr).")]
Table = Annotated[Path | None, typer.Option("--output", "-o", help="Table to write (.csv).")]
Device = Annotated[str, typer.Option(help="Where a large network computes: cpu, cuda or cuda:1.")]
Dose = Annotated[str | None, typer.Option(help='Dose, a number or one for each part ("1+0.5").')]
Time = Annotated[float | None, typer.Option(help="Time of the perturbation.")]
Screen = Annotated[Path, typer.Argument(metavar="DATA.h5ad", help="Cells with raw counts.")]
TableFile = Annotated[Path, typer.Option("--output", "-o", help="Table to write (.csv).")]
Figure = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Figure to draw (.pdf, .png, .svg).")
]
Control = Annotated[str | None, typer.Option(metavar="LABEL", help="Label of unperturbed cells.")]
DoseKey = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column with doses.")]
PerturbationSep = Annotated[
    str | None, typer.Option(help="What joins two perturbations.", show_default="+")
]


def read_dose(dose: str | None) -> float | str | None:
    """A number where the text is one."""
    try:
        return None if dose is None else float(dose)
    except ValueError:
        return dose
