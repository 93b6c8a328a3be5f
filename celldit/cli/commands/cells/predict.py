"""``celldit predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import claim, write_table


@command()
def predict(
    model: options.ModelFolder,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA.h5ad",
            help="Cells to perturb: the controls in it. A model's folder holds no cells.",
        ),
    ] = None,
    perturbation: Annotated[
        list[str] | None,
        typer.Option("--perturbation", "-p", metavar="LABEL", help="Label; repeat for several."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write (.h5ad, .zarr); with --shard, a folder."
        ),
    ] = None,
    effects_output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Log fold changes with their sd as well (.csv, .zarr, .h5ad)."
        ),
        options.WRITTEN,
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Make one of N shards only; one that is there already is not made again.",
        ),
    ] = None,
    counts_layer: options.CountsLayer = None,
    missing: Annotated[
        Literal["refuse", "impute"],
        typer.Option(help="Genes that the data lack: refuse, or impute from the model's controls."),
    ] = "refuse",
    dose: options.Dose = None,
    time: options.Time = None,
    sampler: Annotated[
        Literal["transport", "inversion", "edit"],
        typer.Option(help="How the flow moves a cell; see CellDiT.predict."),
    ] = "transport",
    solver: options.Solver = None,
    n_steps: options.Steps = 8,
    grid: options.Grid = "uniform",
    guidance: options.Guidance = 1.0,
    guidance_interval: options.GuidanceInterval = (0.0, 1.0),
    n_avg: Annotated[
        int | None,
        typer.Option(help="Draws of noise averaged at each step of edit.", show_default="4"),
    ] = None,
    t_start: Annotated[
        float | None,
        typer.Option(
            help="Flow time at which edit starts; later keeps more of the cell.", show_default="0"
        ),
    ] = None,
    batch_size: options.BatchSize = 512,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    overwrite: bool = False,
) -> Answer:
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
    if shard is None:
        claim(output, overwrite=overwrite)
    from celldit.inference.maps.edit import EditConfig
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT

    edit = {k: v for k, v in {"n_avg": n_avg, "t_start": t_start}.items() if v is not None}
    asked: dict[str, Any] = {"dose": options.read_dose(dose), "time": time}
    loaded = CellDiT.load(model).to(device)
    predicted = loaded.predict(
        read_h5ad(data),
        perturbations=perturbation,
        **asked,
        sampler=sampler,
        solver=solver,
        n_steps=n_steps,
        grid=grid,
        guidance=guidance,
        guidance_interval=guidance_interval,
        edit=EditConfig(**edit) if edit else None,  # type: ignore[arg-type]
        seed=seed,
        batch_size=batch_size,
        out=output,
        overwrite=overwrite,
        shard=shard,
        counts_layer=counts_layer,
        missing=missing,
    )
    if effects_output is not None and effects_output.suffix in (".h5ad", ".zarr"):
        loaded.predict_effects(perturbation, **asked, out=effects_output, overwrite=overwrite)
    elif effects_output is not None:
        write_table(loaded.predict_effects(perturbation, **asked), effects_output)
    kinds = predicted.obs["extrapolation"].astype(str)
    label = loaded.fields.perturbation_key
    assert label is not None
    by_label = dict(zip(predicted.obs[label].astype(str), kinds, strict=True))
    said = [f"{predicted.n_obs:,} predicted cells are in {output}."]
    said += [f"  {name}: {kind}" for name, kind in by_label.items()]
    if effects_output is not None:
        said.append(f"Their effects are in {effects_output}.")
    return Answer({"output": str(output), "n_cells": predicted.n_obs, "predicted": by_label}, said)
