"""``celldit effects-table``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command


@command(columns=[*options.SCREEN, "perturbation_sep"])
def effects_table(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA.h5ad",
            help="A screen with raw counts; it stays on disk, whatever its size.",
        ),
    ],
    output: options.AnnDataOutput,
    columns: dict[str, Any],
    source: Annotated[str, typer.Option(help="Where the data are from.")] = "",
    licence: Annotated[str, typer.Option(help="On what terms they may be used.")] = "",
    species: Annotated[str, typer.Option(help="Of which organism they are.")] = "",
    direction: Annotated[str, typer.Option(help="knock-out, knock-down, activation or drug.")] = "",
    min_cells: options.MinCells = 20,
    overwrite: bool = False,
) -> Answer:
    """Measure what each perturbation of a screen does, as a table for celldit train --effects.

    Example: celldit effects-table screen.h5ad -o effects.h5ad --perturbation-key perturbation
    --source "our first screen" --licence "CC BY 4.0"
    """
    from celldit.data import open_store
    from celldit.pp import effect_table

    table = effect_table(
        open_store(data, **columns),
        source=source,
        licence=licence,
        species=species,
        direction=direction,  # type: ignore[arg-type]
        min_cells=min_cells,
        out=output,
        overwrite=overwrite,
    )
    n = int(table.obs["perturbation"].nunique())
    return Answer(
        {"output": str(output), "n_perturbations": n, "n_genes": table.n_vars},
        [
            f"Effects of {n} perturbations on {table.n_vars:,} genes are in {output}.",
            f"To use them: celldit train DATA.h5ad --effects {output}",
        ],
    )
