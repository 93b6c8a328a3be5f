"""Cells from whatever a user has: an AnnData, a path, or an open store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import anndata as ad

from celldit.data.cells import Cells
from celldit.data.disk.opening import open_backed, open_fields, open_store
from celldit.data.disk.stored import StoredCells
from celldit.data.fields import Fields
from celldit.data.screens.modality import set_up_modality
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.memory import within_memory

Source: TypeAlias = ad.AnnData | StoredCells | str | os.PathLike[str]


def read_set_up(source: Source) -> tuple[CellStore, Fields]:
    """Read cells that say themselves what their columns mean: set up, a path, or an open store.

    The counts of a backed AnnData, a path or a store stay on disk. InputError if it was not set up,
    or cannot be used.
    """
    if isinstance(source, StoredCells):
        return source, source.fields
    if isinstance(source, (str, os.PathLike)):
        store = open_store(source)
        return store, store.fields
    source = set_up_modality(source)
    _check_kind(source)
    fields = Fields.from_anndata(source)
    return read_any(source, fields), fields


def read_any(source: Source, fields: Fields, genes: Sequence[str] | None = None) -> CellStore:
    """Read cells of which it is known what their columns mean; of a store, only the files matter.

    With `genes` those alone, in their order.

    InputError if `source` is of another kind. OutOfMemoryError if memory does not suffice.
    """
    with within_memory():
        return _read(source, fields, genes)


def _read(source: Source, fields: Fields, genes: Sequence[str] | None) -> CellStore:
    if isinstance(source, StoredCells):
        if genes is None or source.genes == tuple(genes):
            return source
        return source.with_genes(genes)
    if isinstance(source, (str, os.PathLike)):
        return open_fields(source, fields, genes)
    source = set_up_modality(source)
    _check_kind(source)
    backed = open_backed(source, fields, genes)
    return Cells.from_anndata(source, fields, genes=genes) if backed is None else backed


def _check_kind(source: object) -> None:
    if not isinstance(source, ad.AnnData):
        raise InputError(
            f"Expected an AnnData, a path, or what cd.open_store() gives, got "
            f"{type(source).__name__}; read one with scanpy.read_h5ad('file.h5ad')."
        )
