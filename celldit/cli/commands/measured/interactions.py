"""``celldit interactions``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import read_screen, write_figure, write_table


@command(columns=[*options.SCREEN, "perturbation_sep"])
def interactions(
    data: options.Screen,
    output: options.TableOutput,
    columns: dict[str, Any],
    genes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Deviations of genes to write (.csv)."),
        options.WRITTEN,
    ] = None,
    min_cells: options.MinCells = 20,
    figure: options.Figure = None,
    seed: options.Seed = 0,
) -> Answer:
    """Say whether measured pairs of perturbations do more than the sum of both.

    Example: celldit interactions screen.h5ad -o pairs.csv --genes genes.csv --figure pairs.pdf
    """
    from celldit.pl.interactions import interactions as draw
    from celldit.tl.interactions import interactions as find

    adata = read_screen(data, columns)
    table = find(adata, min_cells=min_cells, seed=seed)
    write_figure(figure, partial(draw, adata))
    write_table(adata.uns["interactions_genes"], genes)
    write_table(table, output)
    said = [
        f"{row.perturbation}{f' in {row.context}' if row.context else ''}: {row.kind}, "
        f"{row.total:.2f} ± {row.total_sd:.2f} of the sum, {row.n_genes} genes deviate"
        for row in table.itertuples()
    ]
    return Answer(table.to_dict("records"), [*said, f"The pairs are in {output}."])
