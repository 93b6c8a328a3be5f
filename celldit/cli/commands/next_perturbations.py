"""``celldit next``."""

from __future__ import annotations

from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.guard import guard, say, say_json


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
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Choose a batch of perturbations from which most would be learned about the others.

    Example: celldit next model -c A+B -c A+C -c B+C -n 2
    """
    with guard(debug=debug, quiet=quiet):
        import anndata as ad

        from celldit.io.files import refuse_existing, whole_file
        from celldit.model import CellDiT
        from celldit.tl.next_perturbations import next_perturbations as choose

        if output is not None:
            refuse_existing([output], overwrite=overwrite)
        table = choose(
            ad.AnnData(),
            CellDiT.load(model),
            candidate or None,
            n=n,
            contexts=context or None,
            genes=gene or None,
            n_cells=n_cells,
        )
        if output is not None:
            with whole_file(output) as path:
                table.to_csv(path, index=False)
        if as_json:
            say_json(table.to_dict("records"))
            return
        for row in table.itertuples():
            say(
                f"{row.perturbation}: {row.left:.1%} is unknown of the others after it", quiet=quiet
            )
