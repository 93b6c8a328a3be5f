"""``celldit train``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.guard import say
from celldit.cli.model_folder import kept, place_of, trained
from celldit.cli.train_features import read_features
from celldit.cli.train_settings import TrainSettings

if TYPE_CHECKING:
    from celldit.data.reading import Source


@command(columns=options.COLUMNS, kept=kept)
def train(
    columns: dict[str, Any],
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
    tokenizer: Annotated[
        str | None,
        typer.Option(help="gene_sets, modules, genes or ranks.", show_default="gene_sets"),
    ] = None,
    latent: Annotated[str | None, typer.Option(help="pca, the only one.")] = None,
    autoencoder: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Folder of a model whose autoencoder to start from."),
    ] = None,
    min_overlap: options.MinOverlap = None,
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
    max_epochs: options.MaxEpochs = None,
    seed: options.OptionalSeed = None,
    accelerator: options.Accelerator = None,
    devices: options.Devices = None,
    strategy: options.Strategy = None,
    nodes: options.Nodes = None,
    checkpoint: options.Checkpoint = None,
    checkpoint_minutes: options.CheckpointMinutes = 10.0,
    config: options.Config = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as TOML and stop.")
    ] = False,
    overwrite: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> Answer | None:
    """Train a model on an AnnData and write it to a folder.

    Example: celldit train screen.h5ad -o model --perturbation-key perturbation
    --covariate-key replicate --size-factor-key total_umis
    """
    given = {
        **columns,
        "tokenizer": tokenizer,
        "latent": latent,
        "autoencoder": autoencoder,
        "min_overlap": min_overlap,
        "train_autoencoder": train_autoencoder,
        "features": features,
        "effects": effects,
        "dit": dit,
        "max_epochs": max_epochs,
        "seed": seed,
        "accelerator": accelerator,
        "devices": devices,
        "strategy": strategy,
        "nodes": nodes,
    }
    settings = TrainSettings.of(config).updated(given)
    if print_config:
        typer.echo(settings.to_toml(), nl=False)
        return None
    if data is None or output is None:
        lacking = "DATA.h5ad" if data is None else "--output FOLDER"
        raise typer.BadParameter(f"{lacking} is missing.")
    keep = {"checkpoint_dir": checkpoint, "checkpoint_minutes": checkpoint_minutes}
    with place_of(output, overwrite=overwrite) as first:
        return _train(data, output, settings, keep, overwrite, quiet or not first, as_json)


def _train(
    data: Path,
    output: Path,
    settings: TrainSettings,
    keep: dict[str, Any],
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> Answer | None:
    from celldit.data import open_store
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT
    from celldit.training.config import TrainingConfig

    training = TrainingConfig(**settings.training)
    adata = None if data.is_dir() else read_h5ad(data)
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
    quiet = quiet or as_json
    say(f"Training on {n_cells:,} cells x {n_genes} genes.", quiet=quiet)
    started = time.perf_counter()
    model.train(
        settings.max_epochs,
        seed=settings.seed,
        config=training,
        enable_progress_bar=not quiet,
        **keep,
        **settings.trainer_arguments(),
    )
    return trained(model, output, n_cells, started, overwrite=overwrite)
