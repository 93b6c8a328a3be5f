"""``celldit next``."""

from __future__ import annotations

from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import write_table


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
    n_cells: Annotated[int, typer.Option(help="Cells for each perturbation and context.")] = 100,
    output: options.Table = None,
) -> Answer:
    """Choose a batch of perturbations from which most would be learned about the others.

    Example: celldit next model -c A+B -c A+C -c B+C -n 2
    """
    import anndata as ad

    from celldit.model import CellDiT
    from celldit.tl.next_perturbations import next_perturbations as choose

    table = choose(
        ad.AnnData(),
        CellDiT.load(model),
        candidate or None,
        n=n,
        contexts=context or None,
        genes=gene or None,
        n_cells=n_cells,
    )
    write_table(table, output)
    said = [
        f"{row.perturbation}: {row.left:.1%} is unknown of the others after it"
        for row in table.itertuples()
    ]
    return Answer(table.to_dict("records"), said)
