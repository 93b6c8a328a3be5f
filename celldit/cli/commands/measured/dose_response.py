"""``celldit dose-response``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.commands.measured.reading import read_screen, write_figure, write_table
from celldit.cli.guard import guard, say, say_json


def dose_response(
    data: options.Screen,
    output: options.TableFile,
    perturbation: options.Perturbations = None,
    points: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Changes at each dose to write (.csv).")
    ] = None,
    min_cells: Annotated[int, typer.Option(help="Least cells of a dose.")] = 10,
    figure: options.Figure = None,
    dose_key: options.DoseKey = None,
    perturbation_key: options.PerturbationKey = None,
    control: options.Control = None,
    covariate_key: options.CovariateKey = None,
    size_factor_key: options.SizeFactorKey = None,
    counts_layer: options.CountsLayer = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fit dose-response curves to measured genes, with the EC50 and how sure it is.

    Example: celldit dose-response drugs.h5ad -o curves.csv --dose-key dose_um --figure curves.pdf
    """
    given = {
        "perturbation_key": perturbation_key,
        "control": control,
        "covariate_keys": covariate_key,
        "size_factor_key": size_factor_key,
        "counts_layer": counts_layer,
        "dose_key": dose_key,
    }
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written."):
        from functools import partial

        from celldit.io.files import refuse_existing
        from celldit.pl.effects.dose_response import dose_response as draw
        from celldit.tl.dose_response import dose_response as find

        paths = [path for path in (output, points, figure) if path]
        refuse_existing(paths, overwrite=overwrite)
        adata = read_screen(data, given)
        table = find(adata, perturbation or None, min_cells=min_cells)
        measured = adata.uns["dose_response_points"]
        write_figure(figure, partial(draw, measured, curves=table))
        if points is not None:
            write_table(measured, points)
        write_table(table, output)
        sure = table[table["lfsr"] < 0.05]
        if as_json:
            say_json({"output": str(output), "rows": len(table), "respond": len(sure)})
            return
        for row in sure.head(10).itertuples():
            say(
                f"{row.perturbation}, {row.gene}: EC50 {row.ec50:.3g} ({row.ec50_low:.3g} to "
                f"{row.ec50_high:.3g})",
                quiet=quiet,
            )
        say(f"{len(sure)} of {len(table):,} curves respond; all are in {output}.", quiet=quiet)
