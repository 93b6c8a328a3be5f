"""``celldit rank``."""

from __future__ import annotations

from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import named_query, write_table


@command()
def rank(
    model: options.ModelFolder,
    data: options.Screen,
    source: Annotated[
        str,
        typer.Option("--from", metavar="QUERY", help="Cells to move: the controls of this query."),
    ],
    target: Annotated[str, options.Target],
    perturbation: options.Perturbations = None,
    dose: options.Dose = None,
    time: options.Time = None,
    output: options.Table = None,
    max_cells: options.MaxCells = 200,
    batch_size: options.BatchSize = 512,
    seed: options.Seed = 0,
) -> Answer:
    """Rank perturbations by how far they move some cells towards others.

    Example: celldit rank model screen.h5ad --from "cell_type == 'CD4 T'"
    --target "cell_type == 'Treg'" -o ranking.csv
    """
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT
    from celldit.tl.rank_perturbations import rank_perturbations

    table = rank_perturbations(
        read_h5ad(data),
        CellDiT.load(model),
        source=source,
        target=named_query(target)[1],
        perturbations=perturbation or None,
        dose=options.read_dose(dose),
        time=time,
        max_cells=max_cells,
        batch_size=batch_size,
        seed=seed,
    )
    write_table(table, output)
    said = [
        f"{row.perturbation}: {row.score:.0%} ± {row.sd:.0%} of the way ({row.extrapolation})"
        for row in table.head(10).itertuples()
    ]
    where = f"; all are in {output}." if output else "; keep them with --output FILE."
    return Answer(table.to_dict("records"), [*said, f"{len(table)} perturbations{where}"])
