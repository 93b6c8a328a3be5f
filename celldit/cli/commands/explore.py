"""``celldit explore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import named_query


@command()
def explore(
    model: options.ModelFolder,
    data: options.Screen,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Page to write (.html)."), options.WRITTEN
    ],
    perturbation: options.Perturbations = None,
    context: options.Contexts = None,
    target: Annotated[list[str] | None, options.Target] = None,
    dose: options.Dose = None,
    time: options.Time = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    max_cells: options.MaxCells = 150,
    seed: options.Seed = 0,
    overwrite: bool = False,
) -> Answer:
    """Write a page in which the effects of perturbations can be explored, in one file.

    Example: celldit explore model screen.h5ad -o explore.html --target "B cells=cell_type == 'B'"
    """
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT
    from celldit.report import explore as write

    page = write(
        read_h5ad(data),
        CellDiT.load(model),
        output,
        perturbation or None,
        contexts=context or None,
        targets=dict(map(named_query, target or ())),
        dose=options.read_dose(dose),
        time=time,
        title=title,
        max_cells=max_cells,
        overwrite=overwrite,
        seed=seed,
    )
    size = page.stat().st_size
    said = f"The page is in {page} ({size / 1e6:.1f} MB); any browser opens it."
    return Answer({"output": str(page), "bytes": size}, [said])
