"""``celldit baseline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.guard import guard, say, say_json


def baseline(
    train: Annotated[
        Path, typer.Argument(metavar="TRAIN.h5ad", help="Cells to learn from, raw counts.")
    ],
    perturbation: Annotated[
        list[str], typer.Option("--perturbation", "-p", help="Label; repeat for several.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad).")],
    name: Annotated[
        str,
        typer.Option(
            help="no change, mean shift, majority vote, additive ridge, nearest, "
            "latent arithmetic or covariance of controls."
        ),
    ] = "additive ridge",
    control: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Control cells to move, if not those of TRAIN.h5ad."),
    ] = None,
    perturbation_key: options.PerturbationKey = None,
    control_label: Annotated[str | None, typer.Option(metavar="LABEL")] = None,
    covariate_key: options.CovariateKey = None,
    size_factor_key: options.SizeFactorKey = None,
    counts_layer: options.CountsLayer = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Predict with a simple baseline, in the layout of celldit predict.

    Example: celldit baseline screen.h5ad -p STAT1 --name nearest --perturbation-key perturbation
    -o nearest.h5ad
    """
    given = {
        "perturbation_key": perturbation_key,
        "control": control_label,
        "covariate_keys": tuple(covariate_key or ()),
        "size_factor_key": size_factor_key,
        "counts_layer": counts_layer,
    }
    renamed = {"control": "--control-label"}
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written.", renamed=renamed):
        from celldit.data import setup_anndata
        from celldit.data.fields import Fields
        from celldit.errors import InputError
        from celldit.evaluation.baselines import predict_baseline
        from celldit.io.files import read_h5ad, refuse_existing, write_h5ad

        refuse_existing([output], overwrite=overwrite)
        screen = read_h5ad(train)
        said: dict[str, Any] = {key: value for key, value in given.items() if value}
        try:
            known: dict[str, Any] = Fields.from_anndata(screen).to_dict()
        except InputError:
            known = {}
        setup_anndata(screen, **{**known, **said})
        base = screen if control is None else read_h5ad(control)
        predicted = predict_baseline(name, screen, base, perturbation, seed=seed)
        write_h5ad(output, predicted)
        if as_json:
            say_json({"output": str(output), "baseline": name, "n_cells": predicted.n_obs})
            return
        say(f"{predicted.n_obs:,} cells predicted by {name!r} are in {output}.", quiet=quiet)
