"""``celldit responders``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.commands.measured.reading import read_screen, write_figure, write_table
from celldit.cli.guard import guard, say, say_json


def responders(
    data: options.Screen,
    output: options.TableFile,
    perturbation: options.Perturbations = None,
    guide_key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the guide of each cell.")
    ] = None,
    cells: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Probability of each cell to write (.csv).")
    ] = None,
    figure: options.Figure = None,
    perturbation_key: options.PerturbationKey = None,
    control: options.Control = None,
    covariate_key: options.CovariateKey = None,
    size_factor_key: options.SizeFactorKey = None,
    counts_layer: options.CountsLayer = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say which perturbed cells responded, and which guides work.

    Example: celldit responders screen.h5ad -o shares.csv --cells cells.csv --guide-key grna
    """
    given = {
        "perturbation_key": perturbation_key,
        "control": control,
        "covariate_keys": covariate_key,
        "size_factor_key": size_factor_key,
        "counts_layer": counts_layer,
    }
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written."):
        from functools import partial

        from celldit.io.files import refuse_existing
        from celldit.pl.responders import responders as draw
        from celldit.tl.responders import responders as find

        paths = [path for path in (output, cells, figure) if path]
        refuse_existing(paths, overwrite=overwrite)
        adata = read_screen(data, given)
        table = find(adata, perturbation or None, guide_key=guide_key, seed=seed)
        write_figure(figure, partial(draw, adata, perturbation or None))
        if cells is not None:
            columns = adata.obs[["p_responded", "response_score"]].dropna()
            write_table(columns.rename_axis("cell").reset_index(), cells)
        write_table(table, output)
        if as_json:
            say_json(table.to_dict("records"))
            return
        for row in table.itertuples():
            name = getattr(row, "guide", row.perturbation)
            say(f"{name}: {row.share:.0%} responded ({row.low:.0%} to {row.high:.0%})", quiet=quiet)
        say(f"The shares are in {output}.", quiet=quiet)
