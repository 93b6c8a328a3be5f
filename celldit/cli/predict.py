"""``celldit predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli.guard import guard, say, say_json
from celldit.cli.options import (
    BatchSize,
    Debug,
    Dose,
    Guidance,
    Json,
    ModelFolder,
    Overwrite,
    Quiet,
    Seed,
    Solver,
    Time,
    read_dose,
)


def predict(
    model: ModelFolder,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA.h5ad",
            help="Cells to perturb: the controls in it. A model's folder holds no cells.",
        ),
    ] = None,
    perturbation: Annotated[
        list[str] | None, typer.Option("--perturbation", "-p", help="Label; repeat for several.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write (.h5ad); with --shard, a folder."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Make one of N shards only; one that is there already is not made again.",
        ),
    ] = None,
    dose: Dose = None,
    time: Time = None,
    solver: Solver = "heun",
    n_steps: Annotated[int, typer.Option(help="Steps of the solver.")] = 8,
    guidance: Guidance = 1.0,
    batch_size: BatchSize = 512,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict control cells as if they had been perturbed.

    Example: celldit predict model screen.h5ad -p STAT1 -p IRF1+JAK2 -o predicted.h5ad
    """
    if data is None:
        raise typer.BadParameter(
            "DATA.h5ad is missing: a model's folder holds no cells, so say which to perturb."
        )
    if not perturbation:
        raise typer.BadParameter("--perturbation is missing; give at least one.")
    if output is None:
        raise typer.BadParameter("--output FILE is missing.")
    with guard(debug=debug, kept=f"{output} was not written."):
        from celldit.files import read_h5ad, refuse_existing, write_h5ad

        if shard is None:
            refuse_existing([output], overwrite=overwrite)
        from celldit.model import CellDiT

        loaded = CellDiT.load(model)
        adata = read_h5ad(data)
        predicted = loaded.predict(
            adata,
            perturbations=perturbation,
            dose=read_dose(dose),
            time=time,
            solver=solver,
            n_steps=n_steps,
            guidance=guidance,
            seed=seed,
            batch_size=batch_size,
            out=None if shard is None else output,
            shard=shard,
        )
        if shard is None:
            write_h5ad(output, predicted)
        kinds = predicted.obs["extrapolation"].astype(str)
        label = loaded.fields.perturbation_key
        assert label is not None
        by_label = dict(zip(predicted.obs[label].astype(str), kinds, strict=True))
        if as_json:
            say_json({"output": str(output), "n_cells": predicted.n_obs, "predicted": by_label})
            return
        say(f"{predicted.n_obs:,} predicted cells are in {output}.", quiet=quiet)
        for name, kind in by_label.items():
            say(f"  {name}: {kind}", quiet=quiet)
