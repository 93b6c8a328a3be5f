"""``celldit baseline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import read_screen


@command(columns=options.SCREEN)
def baseline(
    train: Annotated[
        Path, typer.Argument(metavar="TRAIN.h5ad", help="Cells to learn from, raw counts.")
    ],
    perturbation: options.NamedPerturbations,
    output: options.AnnDataOutput,
    columns: dict[str, Any],
    name: Annotated[
        str,
        typer.Option(
            help="no change, mean shift, majority vote, additive ridge, nearest, "
            "latent arithmetic or covariance of controls."
        ),
    ] = "additive ridge",
    control_cells: options.ControlCells = None,
    seed: options.Seed = 0,
) -> Answer:
    """Predict with a simple baseline, in the layout of celldit predict.

    Example: celldit baseline screen.h5ad -p STAT1 --name nearest --perturbation-key perturbation
    -o nearest.h5ad
    """
    from celldit.evaluation.baselines import predict_baseline
    from celldit.io.files import read_h5ad, write_h5ad

    screen = read_screen(train, columns)
    base = screen if control_cells is None else read_h5ad(control_cells)
    predicted = predict_baseline(name, screen, base, perturbation, seed=seed)
    write_h5ad(output, predicted)
    return Answer(
        {"output": str(output), "baseline": name, "n_cells": predicted.n_obs},
        [f"{predicted.n_obs:,} cells predicted by {name!r} are in {output}."],
    )
