"""``celldit responders``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import read_screen, write_figure, write_table


@command(columns=options.SCREEN)
def responders(
    data: options.Screen,
    output: options.TableOutput,
    columns: dict[str, Any],
    perturbation: options.Perturbations = None,
    guide_key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the guide of each cell.")
    ] = None,
    cells: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Probability of each cell to write (.csv)."),
        options.WRITTEN,
    ] = None,
    figure: options.Figure = None,
    seed: options.Seed = 0,
) -> Answer:
    """Say which perturbed cells responded, and which guides work.

    Example: celldit responders screen.h5ad -o shares.csv --cells cells.csv --guide-key grna
    """
    from celldit.pl.responders import responders as draw
    from celldit.tl.responders import responders as find

    adata = read_screen(data, columns)
    table = find(adata, perturbation or None, guide_key=guide_key, seed=seed)
    write_figure(figure, partial(draw, adata, perturbation or None))
    found = adata.obs[["p_responded", "response_score"]].dropna()
    write_table(found.rename_axis("cell").reset_index(), cells)
    write_table(table, output)
    said = [
        f"{getattr(row, 'guide', row.perturbation)}: {row.share:.0%} responded ({row.low:.0%} to "
        f"{row.high:.0%})"
        for row in table.itertuples()
    ]
    return Answer(table.to_dict("records"), [*said, f"The shares are in {output}."])
