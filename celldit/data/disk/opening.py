"""Opening cells that stay on disk: one file, or a folder of shards with the same genes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata.io import read_elem

from celldit.arguments import check_known, check_path
from celldit.data.checks import check_arguments, check_fields
from celldit.data.disk.files import (
    check_no_links,
    column_names,
    is_zarr,
    opened,
    table_of,
)
from celldit.data.disk.matrix import DiskMatrix
from celldit.data.disk.stored import StoredCells, library_sizes, read_totals
from celldit.data.fields import Fields, fields_of
from celldit.data.genes import FEATURE_COLUMNS, check_are_genes, check_unique_genes, match_genes
from celldit.data.labels.columns import read_columns
from celldit.data.labels.times import find_bins, warn_times
from celldit.errors import FileError, InputError, examples
from celldit.memory import give_back


def open_store(
    path: str | os.PathLike[str],
    *,
    perturbation_key: str | None = None,
    control: object = "control",
    covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    counts_layer: str | None = None,
    dose_key: str | None = None,
    time_key: str | None = None,
    perturbation_sep: str = "+",
) -> StoredCells:
    """Open cells on disk for training or prediction; counts are read by blocks when needed.

    All counts are read once to check them. What is returned is for ``CellDiT(store)`` and
    ``model.predict(store, ...)``; files must stay as they are while it is used.

    Parameters
    ----------
    path
        An ``.h5ad`` file, a ``.zarr`` folder as anndata writes them, or a folder of such shards,
        taken in the order of their names. Counts must be CSR or dense.
    perturbation_key, control, covariate_keys, size_factor_key, counts_layer, dose_key, time_key, \
perturbation_sep
        What the columns mean, as for :func:`celldit.data.setup_anndata`. If none is given, what
        ``setup_anndata`` stored in the (first) file is used.

    Returns
    -------
    StoredCells

    Raises
    ------
    FileError
        If there is no such file, or one cannot be read.
    InputError
        If shards have different genes (says which shard and which genes), or the counts, the genes
        or a column cannot be used.
    UnknownNameError
        If a column or a layer does not exist; names the closest.

    Examples
    --------
    >>> import celldit as cd
    >>> store = cd.open_store("screen.zarr", perturbation_key="perturbation",
    ...                       covariate_keys=["cell_line"])     # doctest: +SKIP
    >>> model = cd.CellDiT(store)                               # doctest: +SKIP
    """
    given = {
        "perturbation_key": perturbation_key,
        "size_factor_key": size_factor_key,
        "counts_layer": counts_layer,
        "dose_key": dose_key,
        "time_key": time_key,
    }
    if all(v is None for v in given.values()) and not covariate_keys and control == "control":
        fields = _stored_fields(shard_paths(path)[0])
    else:
        fields = fields_of(
            **given,
            control=control,
            covariate_keys=covariate_keys,
            perturbation_sep=perturbation_sep,
        )
    store = open_fields(path, fields)
    if fields.time_bins or store.times is None or fields.time_key is None:
        return store
    bins = find_bins(store.times)
    warn_times(store.times, bins, fields.time_key)
    return open_fields(path, replace(fields, time_bins=bins)) if bins else store


def open_fields(
    path: str | os.PathLike[str], fields: Fields, genes: Sequence[str] | None = None
) -> StoredCells:
    """Open cells on disk of which it is known what their columns mean; see :func:`open_store`.

    With `genes` those alone, in their order.
    """
    paths = shard_paths(path)
    check_arguments(fields)
    frames, names = [], []
    for shard_path in paths:
        check_no_links(shard_path)
        with opened(shard_path) as root:
            frames.append(_obs(root, fields, shard_path))
            kinds = [c for c in FEATURE_COLUMNS if c in column_names(root, "var", shard_path)]
            table = table_of(root, "var", kinds, shard_path)
        names.append([str(name) for name in table.index])
        if genes is None:
            check_are_genes(table)
    _check_same_genes(paths, names)
    shards = tuple(
        _matrix(path, fields.counts_layer, (len(frame), len(index)))
        for path, frame, index in zip(paths, frames, names, strict=True)
    )
    obs = frames[0] if len(frames) == 1 else pd.concat([_as_objects(frame) for frame in frames])
    return _open(shards, obs, names[0], fields, genes)


def open_backed(
    adata: ad.AnnData, fields: Fields, genes: Sequence[str] | None = None
) -> StoredCells | None:
    """Open the file behind a backed AnnData, with the columns that it has in memory.

    None where the counts are not on disk by rows (not backed, a view, a layer, CSC).
    """
    backed = adata.isbacked and not adata.is_view and fields.counts_layer is None
    if not backed or adata.filename is None:
        return None
    path = Path(adata.filename)
    with opened(path) as root:
        attributes = root["X"].attrs
        if "csc" in str(attributes.get("encoding-type", attributes.get("h5sparse_format", ""))):
            return None
    shard = _matrix(path, None, adata.shape)
    return _open((shard,), adata.obs, [str(g) for g in adata.var_names], fields, genes)


def _matrix(path: Path, counts_layer: str | None, shape: tuple[int, int]) -> DiskMatrix:
    """The counts of a file, of which there must be as many as cells and genes."""
    shard = DiskMatrix(path, counts_layer)
    if shard.shape != shape:
        raise FileError(
            f"{path} has {shard.shape[0]} x {shard.shape[1]} counts for {shape[0]} cells and "
            f"{shape[1]} genes; write it again."
        )
    return shard


def shard_paths(path: str | os.PathLike[str]) -> list[Path]:
    """The files of a store, in their order; FileError if there is nothing that can be read."""
    source = check_path(path)
    if not source.exists():
        raise FileError(f"There is no {source}; check the path.")
    if not source.is_dir() or is_zarr(source):
        return [source]
    found = sorted(p for p in source.iterdir() if p.suffix in (".h5ad", ".zarr"))
    if not found:
        raise FileError(f"The folder {source} holds no .h5ad and no .zarr; check the path.")
    return found


def _open(
    shards: tuple[DiskMatrix, ...],
    obs: pd.DataFrame,
    available: Sequence[str],
    fields: Fields,
    genes: Sequence[str] | None,
) -> StoredCells:
    if not len(obs) or not len(available):
        lacking = "genes" if len(obs) else "cells"
        raise InputError(f"{shards[0].path} has no {lacking}.")
    check_unique_genes(available)
    columns = None if genes is None else match_genes(available, genes)
    frame = ad.AnnData(obs=obs)
    if genes is None:
        check_fields(frame, fields)
    per_cell = read_columns(frame, fields)
    if per_cell["size_factors"] is None:
        per_cell["size_factors"] = library_sizes(shards, columns)
    else:
        for shard in shards:
            read_totals(shard, columns)  # which looks at every count
    stored = StoredCells(
        shards,
        fields,
        genes=tuple(str(g) for g in (available if genes is None else genes)),
        packed_names=np.array(list(map(str, obs.index)), dtype=np.dtypes.StringDType()),
        control=fields.control,
        columns=columns,
        **per_cell,
    )
    give_back()
    return stored


def _check_same_genes(paths: Sequence[Path], names: Sequence[list[str]]) -> None:
    first = set(names[0])
    for path, own in zip(paths[1:], names[1:], strict=True):
        if own == names[0]:
            continue
        differs = []
        missing, extra = [g for g in names[0] if g not in set(own)], sorted(set(own) - first)
        if missing:
            differs.append(f"lacks {len(missing)} ({examples(missing)})")
        if extra:
            differs.append(f"has {len(extra)} others ({examples(extra)})")
        what = " and ".join(differs) or "has them in another order"
        raise InputError(
            f"All shards must have the same genes in the same order; beside {paths[0].name}, "
            f"{path.name} {what}. Write it again as adata[:, genes], genes being those that all "
            "have."
        )


def described(
    path: str | os.PathLike[str],
) -> tuple[object, list[str], list[str], bool]:
    """What the (first) file says of itself, without reading a column or a count.

    What ``setup_anndata`` stored or None, names of the columns of ``obs`` and of the layers, and
    whether there is an ``X``.
    """
    first = shard_paths(path)[0]
    check_no_links(first)
    with opened(first) as root:
        setup = read_elem(root["uns/celldit/setup"]) if "uns/celldit/setup" in root else None
        layers = [str(name) for name in root["layers"]] if "layers" in root else []
        return setup, column_names(root, "obs", first), layers, "X" in root


def _obs(root: Any, fields: Fields, path: Path) -> pd.DataFrame:
    """The columns of ``obs`` that matter, and the names of the cells."""
    known = column_names(root, "obs", path)
    for role, key in fields.columns:
        check_known([key], known, f"column for {role} in obs of {path.name}")
    return table_of(root, "obs", list(dict.fromkeys(key for _, key in fields.columns)), path)


def _as_objects(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories of different shards do not fit together; their values do."""
    return frame.astype({k: object for k, t in frame.dtypes.items() if t == "category"})


def _stored_fields(path: Path) -> Fields:
    stored = described(path)[0]
    if not isinstance(stored, Mapping):
        raise InputError(
            f"{path} does not say what its columns mean; use cd.open_store(path, "
            "perturbation_key=..., control=..., covariate_keys=[...])."
        )
    return Fields.from_dict(stored)
