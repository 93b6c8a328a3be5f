"""``celldit generate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.guard import guard, say, say_json
from celldit.cli.output import claim
from celldit.progress import quietly


def generate(
    model: options.ModelFolder,
    n_cells: Annotated[int, typer.Argument(metavar="N", help="How many cells.")],
    output: options.CellsFile,
    perturbation: Annotated[
        str | None,
        typer.Option("--perturbation", "-p", help="Label; all, as in training, by default."),
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
    solver: options.Solver = "heun",
    n_steps: options.Steps = 8,
    grid: options.Grid = "uniform",
    guidance: options.Guidance = 1.0,
    guidance_interval: options.GuidanceInterval = (0.0, 1.0),
    batch_size: options.BatchSize = 512,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Generate cells that never were.

    Example: celldit generate model 1000 -p STAT1 --covariate replicate=rep_1 -o new.h5ad
    """
    covariates = _pairs(covariate or ())
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written."):
        from celldit.io.files import read_h5ad

        claim(output, overwrite=overwrite)
        from celldit.model import CellDiT

        loaded = CellDiT.load(model).to(device)
        with quietly(quiet or as_json):
            generated = loaded.generate(
                n_cells,
                perturbation=perturbation,
                covariates=covariates or None,
                like=None if like is None else read_h5ad(like),
                counts_layer=counts_layer,
                dose=options.read_dose(dose),
                time=time,
                solver=solver,
                n_steps=n_steps,
                grid=grid,
                guidance=guidance,
                guidance_interval=guidance_interval,
                seed=seed,
                batch_size=batch_size,
                out=output,
                overwrite=overwrite,
            )
        if as_json:
            say_json({"output": str(output), "n_cells": generated.n_obs})
            return
        say(f"{generated.n_obs:,} new cells are in {output}.", quiet=quiet)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"--covariate takes COLUMN=VALUE, not {text!r}.")
        pairs[name] = value
    return pairs
