"""``celldit effects-table``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.guard import guard, say, say_json


def effects_table(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA.h5ad",
            help="A screen with raw counts; it stays on disk, whatever its size.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad).")],
    perturbation_key: options.PerturbationKey = None,
    control: options.Control = None,
    covariate_key: options.CovariateKey = None,
    size_factor_key: options.SizeFactorKey = None,
    counts_layer: options.CountsLayer = None,
    perturbation_sep: options.PerturbationSep = None,
    source: Annotated[str, typer.Option(help="Where the data are from.")] = "",
    licence: Annotated[str, typer.Option(help="On what terms they may be used.")] = "",
    species: Annotated[str, typer.Option(help="Of which organism they are.")] = "",
    direction: Annotated[str, typer.Option(help="knock-out, knock-down, activation or drug.")] = "",
    min_cells: Annotated[int, typer.Option(help="Least cells of a condition.")] = 20,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure what each perturbation of a screen does, as a table for celldit train --effects.

    Example: celldit effects-table screen.h5ad -o effects.h5ad --perturbation-key perturbation
    --source "our first screen" --licence "CC BY 4.0"
    """
    given = {
        "perturbation_key": perturbation_key,
        "control": control,
        "covariate_keys": tuple(covariate_key or ()),
        "size_factor_key": size_factor_key,
        "counts_layer": counts_layer,
        "perturbation_sep": perturbation_sep,
    }
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written."):
        from celldit.data import open_store
        from celldit.io.files import refuse_existing
        from celldit.pp import effect_table

        refuse_existing([output], overwrite=overwrite)
        said: dict[str, Any] = {key: value for key, value in given.items() if value}
        table = effect_table(
            open_store(data, **said),
            source=source,
            licence=licence,
            species=species,
            direction=direction,  # type: ignore[arg-type]
            min_cells=min_cells,
            out=output,
            overwrite=overwrite,
        )
        n = int(table.obs["perturbation"].nunique())
        if as_json:
            say_json({"output": str(output), "n_perturbations": n, "n_genes": table.n_vars})
            return
        say(f"Effects of {n} perturbations on {table.n_vars:,} genes are in {output}.", quiet=quiet)
        say(f"To use them: celldit train DATA.h5ad --effects {output}", quiet=quiet)
