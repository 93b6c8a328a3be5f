"""``celldit train``."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.guard import guard, say, say_json
from celldit.cli.train_features import read_features
from celldit.cli.train_settings import TrainSettings
from celldit.errors import FileError

if TYPE_CHECKING:
    from celldit.data.reading import Source


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA.h5ad",
            help="Cells with raw counts; those of a .zarr or a folder of shards stay on disk.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the model.")
    ] = None,
    perturbation_key: options.PerturbationKey = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="Label of unperturbed cells; repeat for several.", show_default="control"
        ),
    ] = None,
    covariate_key: options.CovariateKey = None,
    size_factor_key: options.SizeFactorKey = None,
    counts_layer: options.CountsLayer = None,
    dose_key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with doses.")
    ] = None,
    time_key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with times.")
    ] = None,
    perturbation_sep: Annotated[
        str | None, typer.Option(help="Between the parts of a combination.", show_default="+")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="gene_sets, modules, genes or ranks.", show_default="gene_sets"),
    ] = None,
    latent: Annotated[str | None, typer.Option(help="pca, the only one.")] = None,
    autoencoder: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Folder of a model whose autoencoder to start from."),
    ] = None,
    min_overlap: Annotated[
        float | None,
        typer.Option(help="Least share of its genes that the data must have.", show_default="0.5"),
    ] = None,
    train_autoencoder: Annotated[
        bool | None,
        typer.Option(
            "--train-autoencoder/--keep-autoencoder",
            help="Whether it is trained further.",
            show_default="--train-autoencoder",
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="What is known of perturbations, for those never seen: reactome, hallmark, "
            "expression, go, a .gmt file, or a .csv, .parquet, .npy, .npz or .h5ad with a row for "
            "each, or of edges of a network; repeat for several.",
        ),
    ] = None,
    effects: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help="Effects that others measured, of celldit effects-table or in rows (.h5ad, .csv, "
            ".parquet); repeat for several.",
        ),
    ] = None,
    dit: Annotated[
        str | None, typer.Option(help="Size of the network: S, B, L or XL.", show_default="S")
    ] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="Most epochs of each stage.", show_default="by the data")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random.", show_default="0")
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="cpu, gpu, ... (Lightning).", show_default="auto")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Number of devices (Lightning).", show_default="auto")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="ddp, fsdp, ... (Lightning).", show_default="auto")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Number of machines (Lightning).", show_default="1")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for checkpoints; the same command goes on from the last one.",
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between two checkpoints.")
    ] = 10.0,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with these settings and those of training.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as TOML and stop.")
    ] = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a model on an AnnData and write it to a folder.

    Example: celldit train screen.h5ad -o model --perturbation-key perturbation
    --covariate-key replicate --size-factor-key total_umis
    """
    given = {
        "perturbation_key": perturbation_key,
        "control": tuple(control or ()),
        "covariate_keys": tuple(covariate_key or ()),
        "size_factor_key": size_factor_key,
        "counts_layer": counts_layer,
        "dose_key": dose_key,
        "time_key": time_key,
        "perturbation_sep": perturbation_sep,
        "tokenizer": tokenizer,
        "latent": latent,
        "autoencoder": autoencoder,
        "min_overlap": min_overlap,
        "train_autoencoder": train_autoencoder,
        "features": tuple(features or ()),
        "effects": tuple(effects or ()),
        "dit": dit,
        "max_epochs": max_epochs,
        "seed": seed,
        "accelerator": accelerator,
        "devices": devices,
        "strategy": strategy,
        "nodes": nodes,
    }
    kept = "No model was written: it is written only when training is done."
    if checkpoint is not None:
        kept += f" The checkpoints in {checkpoint} are whole; the same command goes on from there."
    with guard(debug=debug, quiet=quiet, kept=kept):
        settings = TrainSettings() if config is None else TrainSettings.from_toml(config)
        settings = settings.updated(given)
        if print_config:
            typer.echo(settings.to_toml(), nl=False)
            return
        if data is None or output is None:
            lacking = "DATA.h5ad" if data is None else "--output FOLDER"
            raise typer.BadParameter(f"{lacking} is missing.")
        from celldit.io.launched import is_first_process
        from celldit.io.locks import sole_writer

        keep = {"checkpoint_dir": checkpoint, "checkpoint_minutes": checkpoint_minutes}
        # Of several processes of one training only the first writes, and holds the place for all.
        first = is_first_process()
        with sole_writer(output) if first else nullcontext():
            _train(data, output, settings, keep, overwrite, quiet or not first, as_json)


def _train(
    data: Path,
    output: Path,
    settings: TrainSettings,
    keep: dict[str, Any],
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    from celldit.io.files import read_h5ad
    from celldit.io.folders import CONFIG

    if output.exists() and not overwrite:
        raise FileError(f"{output} exists already; choose another folder, or pass --overwrite.")
    if output.exists() and not (output / CONFIG).is_file():
        raise FileError(f"{output} is not a celldit model, so it will not be replaced.")
    adata = None if data.is_dir() else read_h5ad(data)
    from celldit.data import open_store
    from celldit.model import CellDiT
    from celldit.training.config import TrainingConfig
    from celldit.training.saving.checkpoints import is_main_process

    training = TrainingConfig(**settings.training)
    if adata is None:
        store = open_store(data, **settings.setup_arguments())
        source: Source = store
        n_cells, n_genes = store.n_cells, store.n_genes
    else:
        CellDiT.setup_anndata(adata, **settings.setup_arguments())
        source, (n_cells, n_genes) = adata, adata.shape
    model = CellDiT(
        source,
        **settings.model_arguments(),
        features=read_features(settings.features, adata),
        effects=list(settings.effects) or None,
        dit=settings.dit,
    )
    if settings.perturbation_key is None and not quiet:
        typer.echo(
            "Note: without --perturbation-key the model learns what cells are like, for celldit "
            "generate, but of no perturbation.",
            err=True,
        )
    say(f"Training on {n_cells:,} cells x {n_genes} genes.", quiet=quiet or as_json)
    started = time.perf_counter()
    model.train(
        settings.max_epochs,
        seed=settings.seed,
        config=training,
        enable_progress_bar=not (quiet or as_json),
        **keep,
        **settings.trainer_arguments(),
    )
    if not is_main_process():
        return
    model.save(output, overwrite=overwrite)
    seconds = time.perf_counter() - started
    if as_json:
        say_json(
            {
                "model": str(output),
                "id": model.trained.model_id,
                "n_cells": n_cells,
                "n_genes": n_genes,
                "flow_weight": model.flow_weight,
                "seconds": round(seconds, 1),
            }
        )
        return
    say(f"Trained in {seconds:.0f} s; the model is in {output}.", quiet=quiet)
    say(f"What it can do: celldit info {output}", quiet=quiet)
