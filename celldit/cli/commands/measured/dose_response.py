"""``celldit dose-response``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import read_screen, write_figure, write_table


@command(columns=[*options.SCREEN, "dose_key"])
def dose_response(
    data: options.Screen,
    output: options.TableOutput,
    columns: dict[str, Any],
    perturbation: options.Perturbations = None,
    points: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Changes at each dose to write (.csv)."),
        options.WRITTEN,
    ] = None,
    min_cells: options.MinCells = 10,
    figure: options.Figure = None,
) -> Answer:
    """Fit dose-response curves to measured genes, with the EC50 and how sure it is.

    Example: celldit dose-response drugs.h5ad -o curves.csv --dose-key dose_um --figure curves.pdf
    """
    from celldit.pl.effects.dose_response import dose_response as draw
    from celldit.tl.dose_response import dose_response as find

    adata = read_screen(data, columns)
    table = find(adata, perturbation or None, min_cells=min_cells)
    measured = adata.uns["dose_response_points"]
    write_figure(figure, partial(draw, measured, curves=table))
    write_table(measured, points)
    write_table(table, output)
    sure = table[table["lfsr"] < 0.05]
    said = [
        f"{row.perturbation}, {row.gene}: EC50 {row.ec50:.3g} ({row.ec50_low:.3g} to "
        f"{row.ec50_high:.3g})"
        for row in sure.head(10).itertuples()
    ]
    said.append(f"{len(sure)} of {len(table):,} curves respond; all are in {output}.")
    return Answer({"output": str(output), "rows": len(table), "respond": len(sure)}, said)
