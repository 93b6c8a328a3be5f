"""``celldit fine-tune``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import read_screen
from celldit.cli.guard import say
from celldit.cli.model_folder import kept, place_of, trained
from celldit.cli.train_settings import TrainSettings


@command(columns=options.COLUMNS, kept=kept)
def fine_tune(
    model: options.ModelFolder,
    data: options.Screen,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the new model.")],
    columns: dict[str, Any],
    max_epochs: options.MaxEpochs = None,
    seed: options.OptionalSeed = None,
    min_overlap: options.MinOverlap = None,
    accelerator: options.Accelerator = None,
    devices: options.Devices = None,
    strategy: options.Strategy = None,
    nodes: options.Nodes = None,
    checkpoint: options.Checkpoint = None,
    checkpoint_minutes: options.CheckpointMinutes = 10.0,
    config: options.Config = None,
    overwrite: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> Answer | None:
    """Go on with other data: other genes, new perturbations, new contexts.

    Columns have the names that they had in training, unless the file was set up or options say
    otherwise. Of a settings file the table train counts.

    Example: celldit fine-tune model other_lab.h5ad -o model_of_both --covariate-key batch
    """
    given = {
        "max_epochs": max_epochs,
        "seed": seed,
        "min_overlap": min_overlap,
        "accelerator": accelerator,
        "devices": devices,
        "strategy": strategy,
        "nodes": nodes,
    }
    settings = TrainSettings.of(config).updated(given)
    with place_of(output, overwrite=overwrite) as first:
        from celldit.model import CellDiT
        from celldit.training.fine_tune import GENTLE

        loaded = CellDiT.load(model)
        adata = read_screen(data, columns, loaded.fields.arguments())
        quiet = quiet or as_json or not first
        say(f"Fine-tuning on {adata.n_obs:,} cells x {adata.n_vars} genes.", quiet=quiet)
        started = time.perf_counter()
        loaded.fine_tune(
            adata,
            max_epochs=settings.max_epochs,
            seed=settings.seed,
            min_overlap=settings.min_overlap,
            config=replace(GENTLE, **settings.training),
            checkpoint_dir=checkpoint,
            checkpoint_minutes=checkpoint_minutes,
            enable_progress_bar=not quiet,
            **settings.trainer_arguments(),
        )
        return trained(loaded, output, adata.n_obs, started, overwrite=overwrite)
