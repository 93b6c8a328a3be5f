"""``celldit next``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import named_query, write_table


@command()
def next_perturbations(
    model: options.ModelFolder,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate", "-c", help="Label; repeat; by default all with features, not measured."
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="How many to choose.")] = 5,
    context: options.Contexts = None,
    gene: Annotated[
        list[str] | None,
        typer.Option("--gene", help="Gene to learn about; repeat; all by default."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Screen, .h5ad, in which --target picks cells.")
    ] = None,
    target: Annotated[str | None, options.Target] = None,
    about: Annotated[
        Literal["others", "target", "both"] | None,
        typer.Option(help="What to learn.", show_default="both with --target, else others"),
    ] = None,
    n_cells: Annotated[int, typer.Option(help="Cells for each perturbation and context.")] = 100,
    output: options.Table = None,
) -> Answer:
    """Choose a batch of perturbations from which most would be learned about the others.

    Example: celldit next model -c A+B -c A+C -c B+C -n 2
    """
    import anndata as ad

    from celldit.errors import InputError
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT
    from celldit.tl.next_perturbations import next_perturbations as choose

    if (data is None) != (target is None):
        raise InputError("--target picks cells of --data; give both, or neither.")
    table = choose(
        ad.AnnData() if data is None else read_h5ad(data),
        CellDiT.load(model),
        candidate or None,
        n=n,
        contexts=context or None,
        genes=gene or None,
        target=None if target is None else named_query(target)[1],
        about=about,
        n_cells=n_cells,
    )
    write_table(table, output)
    said = [
        f"{row.perturbation}: {row.left:.1%} is unknown of the others after it"
        for row in table.itertuples()
    ]
    return Answer(table.to_dict("records"), said)
