"""``celldit interpolate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import claim

if TYPE_CHECKING:
    import anndata as ad


@command()
def interpolate(
    model: options.ModelFolder,
    data: options.Screen,
    output: options.CellsOutput,
    start: Annotated[str | None, typer.Option(metavar="LABEL", help="First condition.")] = None,
    end: Annotated[str | None, typer.Option(metavar="LABEL", help="Last condition.")] = None,
    start_cell: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="First cell, in place of --start.")
    ] = None,
    end_cell: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Last cell, in place of --end.")
    ] = None,
    share: Annotated[
        list[float], typer.Option(help="How far along the way, 0 to 1; repeat for several.")
    ] = [0.0, 0.25, 0.5, 0.75, 1.0],  # noqa: B006
    batch_size: options.BatchSize = 512,
    seed: options.Seed = 0,
    overwrite: bool = False,
) -> Answer:
    """Show cells on the way from one condition to another, or from one observed cell to another.

    Between conditions each control cell goes from what it would be under the first to what it would
    be under the last; the control's label is allowed.

    Example: celldit interpolate model screen.h5ad --start control --end STAT1 -o way.h5ad
    """
    cells, conditions = (start_cell, end_cell), (start, end)
    if all(conditions) == all(cells) or (any(conditions) and any(cells)):
        raise typer.BadParameter("Give --start and --end, or --start-cell and --end-cell.")
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT

    claim(output, overwrite=overwrite)
    loaded = CellDiT.load(model)
    ask: Callable[..., ad.AnnData] = loaded.interpolate_cells if start_cell else loaded.interpolate
    first, last = cells if start_cell else conditions
    way = ask(
        read_h5ad(data),
        start=first,
        end=last,
        shares=share,
        batch_size=batch_size,
        seed=seed,
        out=output,
        overwrite=overwrite,
    )
    said = f"{way.n_obs:,} cells on the way are in {output}."
    return Answer({"output": str(output), "n_cells": way.n_obs}, [said])
