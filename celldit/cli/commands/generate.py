"""``celldit generate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from celldit.cli.guard import guard, say, say_json
from celldit.cli.options import (
    BatchSize,
    CountsLayer,
    Debug,
    Device,
    Dose,
    Grid,
    Guidance,
    GuidanceInterval,
    Json,
    ModelFolder,
    Overwrite,
    Quiet,
    Seed,
    Solver,
    Steps,
    Time,
    read_dose,
)
from celldit.cli.output import claim
from celldit.cli.progress import sampling_bar


def generate(
    model: ModelFolder,
    n_cells: Annotated[int, typer.Argument(metavar="N", help="How many cells.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad, .zarr).")],
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
    counts_layer: CountsLayer = None,
    dose: Dose = None,
    time: Time = None,
    solver: Solver = "heun",
    n_steps: Steps = 8,
    grid: Grid = "uniform",
    guidance: Guidance = 1.0,
    guidance_interval: GuidanceInterval = (0.0, 1.0),
    batch_size: BatchSize = 512,
    device: Device = "cpu",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
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
        with sampling_bar("generating", hidden=quiet or as_json):
            generated = loaded.generate(
                n_cells,
                perturbation=perturbation,
                covariates=covariates or None,
                like=None if like is None else read_h5ad(like),
                counts_layer=counts_layer,
                dose=read_dose(dose),
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
