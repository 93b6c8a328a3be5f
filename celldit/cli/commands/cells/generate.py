"""``celldit generate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import claim


@command()
def generate(
    model: options.ModelFolder,
    n_cells: Annotated[int, typer.Argument(metavar="N", help="How many cells.")],
    output: options.CellsOutput,
    perturbation: Annotated[
        str | None,
        typer.Option(
            "--perturbation",
            "-p",
            metavar="LABEL",
            help="Label; repeat for several.",
            show_default="all",
        ),
    ] = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Value of a covariate; repeat for several."),
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Follow the composition of this .h5ad file.")
    ] = None,
    counts_layer: options.CountsLayer = None,
    dose: options.Dose = None,
    time: options.Time = None,
    solver: options.Solver = None,
    n_steps: options.Steps = 8,
    grid: options.Grid = "uniform",
    guidance: options.Guidance = 1.0,
    guidance_interval: options.GuidanceInterval = (0.0, 1.0),
    batch_size: options.BatchSize = 512,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    overwrite: bool = False,
) -> Answer:
    """Generate cells that never were.

    Example: celldit generate model 1000 -p STAT1 --covariate replicate=rep_1 -o new.h5ad
    """
    covariates = _pairs(covariate or ())
    claim(output, overwrite=overwrite)
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT

    generated = (
        CellDiT.load(model)
        .to(device)
        .generate(
            n_cells,
            perturbation=perturbation,
            covariates=covariates or None,
            like=None if like is None else read_h5ad(like),
            counts_layer=counts_layer,
            dose=options.read_dose(dose),
            time=time,
            solver=solver or "heun",
            n_steps=n_steps,
            grid=grid,
            guidance=guidance,
            guidance_interval=guidance_interval,
            seed=seed,
            batch_size=batch_size,
            out=output,
            overwrite=overwrite,
        )
    )
    said = f"{generated.n_obs:,} new cells are in {output}."
    return Answer({"output": str(output), "n_cells": generated.n_obs}, [said])


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"--covariate takes COLUMN=VALUE, not {text!r}.")
        pairs[name] = value
    return pairs
