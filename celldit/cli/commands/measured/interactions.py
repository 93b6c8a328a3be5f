"""``celldit interactions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.commands.measured.reading import read_screen, write_figure, write_table
from celldit.cli.guard import guard, say, say_json


def interactions(
    data: options.Screen,
    output: options.TableFile,
    genes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Deviations of genes to write (.csv).")
    ] = None,
    min_cells: Annotated[int, typer.Option(help="Least cells of a pair and of its parts.")] = 20,
    figure: options.Figure = None,
    perturbation_key: options.PerturbationKey = None,
    control: options.Control = None,
    covariate_key: options.CovariateKey = None,
    size_factor_key: options.SizeFactorKey = None,
    counts_layer: options.CountsLayer = None,
    perturbation_sep: options.PerturbationSep = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say whether measured pairs of perturbations do more than the sum of both.

    Example: celldit interactions screen.h5ad -o pairs.csv --genes genes.csv --figure pairs.pdf
    """
    given = {
        "perturbation_key": perturbation_key,
        "control": control,
        "covariate_keys": covariate_key,
        "size_factor_key": size_factor_key,
        "counts_layer": counts_layer,
        "perturbation_sep": perturbation_sep,
    }
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written."):
        from functools import partial

        from celldit.io.files import refuse_existing
        from celldit.pl.interactions import interactions as draw
        from celldit.tl.interactions import interactions as find

        paths = [path for path in (output, genes, figure) if path]
        refuse_existing(paths, overwrite=overwrite)
        adata = read_screen(data, given)
        table = find(adata, min_cells=min_cells, seed=seed)
        write_figure(figure, partial(draw, adata))
        if genes is not None:
            write_table(adata.uns["interactions_genes"], genes)
        write_table(table, output)
        if as_json:
            say_json(table.to_dict("records"))
            return
        for row in table.itertuples():
            where = f" in {row.context}" if row.context else ""
            say(
                f"{row.perturbation}{where}: {row.kind}, {row.total:.2f} ± {row.total_sd:.2f} of "
                f"the sum, {row.n_genes} genes deviate",
                quiet=quiet,
            )
        say(f"The pairs are in {output}.", quiet=quiet)
