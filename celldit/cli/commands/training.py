"""Commands that write a model: train, fine-tune."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import celldit as cd
from celldit.cli import options
from celldit.cli.command import Answer, command, note, say
from celldit.cli.files import read_screen
from celldit.cli.settings import TrainSettings
from celldit.errors import InputError
from celldit.io.files import read_h5ad
from celldit.io.locks import is_first_process, sole_writer

if TYPE_CHECKING:
    import anndata as ad

    from celldit.data.reading import Source


def _kept(given: Mapping[str, Any]) -> str:
    """What an interruption leaves."""
    said = "No model was written: it is written only when training is done."
    if given["checkpoint"] is None:
        return said
    where = given["checkpoint"]
    return f"{said} The checkpoints in {where} are whole; the same command goes on from there."


@command(columns=options.COLUMNS, group={**options.MODEL, **options.TRAINING}, kept=_kept)
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
    checkpoint: options.Checkpoint = None,
    checkpoint_minutes: options.CheckpointMinutes = 10.0,
    config: options.Config = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as TOML and stop.")
    ] = False,
    overwrite: bool = False,
    quiet: bool = False,
    as_json: bool = False,
    **given: Any,
) -> Answer | None:
    """Train a model on an AnnData and write it to a folder.

    Example: celldit train screen.h5ad -o model --perturbation-key perturbation
    --covariate-key replicate --size-factor-key total_umis
    """
    settings = TrainSettings.of(config).updated({**columns, **given})
    if print_config:
        typer.echo(settings.to_toml(), nl=False)
        return None
    if data is None or output is None:
        lacking = "DATA.h5ad" if data is None else "--output FOLDER"
        raise typer.BadParameter(f"{lacking} is missing.")
    with _place_of(output, overwrite=overwrite) as first:
        from celldit.training.config import TrainingConfig

        training = TrainingConfig(**settings.training)
        adata = None if data.is_dir() else read_h5ad(data)
        if adata is None:
            store = cd.open_store(data, **settings.setup_arguments())
            source: Source = store
            n_cells, n_genes = store.n_cells, store.n_genes
        else:
            cd.CellDiT.setup_anndata(adata, **settings.setup_arguments())
            source, (n_cells, n_genes) = adata, adata.shape
        model = cd.CellDiT(
            source,
            **settings.model_arguments(),
            features=read_features(settings.features, adata),
            effects=list(settings.effects) or None,
            dit=settings.dit,
        )
        if settings.perturbation_key is None:
            note(
                "without --perturbation-key the model learns what cells are like, for celldit "
                "generate, but of no perturbation.",
                quiet=quiet or not first,
            )
        quiet = quiet or as_json or not first
        say(f"Training on {n_cells:,} cells x {n_genes} genes.", quiet=quiet)
        started = time.perf_counter()
        model.train(
            settings.max_epochs,
            seed=settings.seed,
            config=training,
            checkpoint_dir=checkpoint,
            checkpoint_minutes=checkpoint_minutes,
            enable_progress_bar=not quiet,
            **settings.trainer_arguments(),
        )
        return _trained(model, output, n_cells, started, overwrite=overwrite)


@command(columns=options.COLUMNS, group=options.TRAINING, kept=_kept)
def fine_tune(
    model: options.ModelFolder,
    data: options.Screen,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the new model.")],
    columns: dict[str, Any],
    checkpoint: options.Checkpoint = None,
    checkpoint_minutes: options.CheckpointMinutes = 10.0,
    config: options.Config = None,
    overwrite: bool = False,
    quiet: bool = False,
    as_json: bool = False,
    **given: Any,
) -> Answer | None:
    """Go on with other data: other genes, new perturbations, new contexts.

    Columns have the names that they had in training, unless the file was set up or options say
    otherwise. Of a settings file the table train counts.

    Example: celldit fine-tune model other_lab.h5ad -o model_of_both --covariate-key batch
    """
    settings = TrainSettings.of(config).updated(given)
    with _place_of(output, overwrite=overwrite) as first:
        from celldit.training.fine_tune import GENTLE

        loaded = cd.CellDiT.load(model)
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
        return _trained(loaded, output, adata.n_obs, started, overwrite=overwrite)


@contextmanager
def _place_of(output: Path, *, overwrite: bool) -> Iterator[bool]:
    """Hold the folder of a model while it is trained; says whether this process is the first.

    FileError if it exists already, is no model, or another process writes to it.
    """
    from celldit.io.folders import check_place

    # Of several processes of one training only the first writes, and holds the place for all.
    first = is_first_process()
    with sole_writer(output) if first else nullcontext():
        check_place(output, overwrite=overwrite)
        yield first


def _trained(
    model: cd.CellDiT, output: Path, n_cells: int, started: float, *, overwrite: bool
) -> Answer | None:
    """Save a model, and say so; None from processes that only helped."""
    from celldit.training.saving.checkpoints import is_main_process

    if not is_main_process():
        return None
    model.save(output, overwrite=overwrite)
    seconds = time.perf_counter() - started
    content = {
        "model": str(output),
        "id": model.trained.model_id,
        "n_cells": n_cells,
        "n_genes": len(model.genes),
        "flow_weight": model.flow_weight,
        "seconds": round(seconds, 1),
    }
    said = [
        f"Trained in {seconds:.0f} s; the model is in {output}.",
        f"What it can do: celldit info {output}",
    ]
    return Answer(content, said)


def read_features(sources: Sequence[str], adata: ad.AnnData | None) -> dict[str, Any]:
    """Tables of what is known of perturbations, one for each source.

    Sources are names of those of :func:`celldit.pp.gene_features`, GMT files, or files as
    :mod:`celldit.effects.features.files` reads them; `adata` are the training cells, set up, or
    None where they stay on disk.

    FileError if a file cannot be read. InputError if co-expression is asked of cells that stay on
    disk. UnknownNameError if a source is not known.
    """
    from celldit.effects.features.files import ENDINGS, table_of

    named = [source for source in sources if not source.lower().endswith(ENDINGS)]
    tables: dict[str, Any] = {Path(s).stem: table_of(s) for s in sources if s not in named}
    if named and adata is None:
        from celldit.effects.features.gene_sources import describe, name_of

        if "expression" in named:
            raise InputError(
                "--features expression looks at control cells in memory, from a .h5ad file; for "
                "cells that stay on disk give gene sets, such as --features reactome, or FILE.csv."
            )
        for source in named:
            tables[name_of(source, list(tables))] = describe(source, None, None, 0)
    elif named and adata is not None:
        tables.update(cd.pp.gene_features(adata, named, allow_missing=True))
        # It leaves its result in uns, which training does not read.
        del adata.uns["gene_features"]
    return tables
