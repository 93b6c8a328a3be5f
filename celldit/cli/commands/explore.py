"""``celldit explore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.guard import guard, say, say_json
from celldit.errors import InputError


def explore(
    model: options.ModelFolder,
    data: Annotated[
        Path, typer.Argument(metavar="SCREEN.h5ad", help="Measured cells, controls among them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write (.html).")],
    perturbation: options.Perturbations = None,
    context: options.Contexts = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=QUERY", help="State to reach: a name and a query of obs; repeat."
        ),
    ] = None,
    dose: options.Dose = None,
    time: options.Time = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    max_cells: Annotated[int, typer.Option(help="Most control cells of a context shown.")] = 150,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write a page in which the effects of perturbations can be explored, in one file.

    Example: celldit explore model screen.h5ad -o explore.html --target "B cells=cell_type == 'B'"
    """
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written."):
        from celldit.io.files import read_h5ad, refuse_existing
        from celldit.model import CellDiT
        from celldit.report import explore as write

        refuse_existing([output], overwrite=overwrite)
        targets = dict(_named(entry) for entry in target or ())
        page = write(
            read_h5ad(data),
            CellDiT.load(model),
            output,
            perturbation or None,
            contexts=context or None,
            targets=targets,
            dose=options.read_dose(dose),
            time=time,
            title=title,
            max_cells=max_cells,
            overwrite=overwrite,
            seed=seed,
        )
        size = page.stat().st_size
        if as_json:
            say_json({"output": str(page), "bytes": size})
            return
        say(f"The page is in {page} ({size / 1e6:.1f} MB); any browser opens it.", quiet=quiet)


def _named(entry: str) -> tuple[str, str]:
    """Name and query of a target."""
    name, sign, query = entry.partition("=")
    if not sign or not name.strip() or not query.strip():
        raise InputError(
            f"The target {entry!r} must be NAME=QUERY, such as \"B cells=cell_type == 'B'\"."
        )
    return name.strip(), query.strip()
