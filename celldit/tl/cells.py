"""What every tool asks first: is the model trained, and which cells does the AnnData hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad
import pandas as pd

from celldit.arguments import check_key
from celldit.data.cells import Cells
from celldit.data.checks import check_anndata
from celldit.data.disk.pointers import check_matrices
from celldit.data.fields import Fields
from celldit.data.query import query_fields
from celldit.errors import InputError
from celldit.model import CellDiT
from celldit.pl.gene_names import GeneNames
from celldit.training.trained import Trained


def trained_parts(model: CellDiT) -> Trained:
    """Return the trained parts of a model.

    InputError if `model` is something else, most often because the arguments were exchanged;
    NotTrainedError if it was not trained.
    """
    if not isinstance(model, CellDiT):
        raise InputError(
            f"model must be a CellDiT, not {type(model).__name__}; the AnnData comes first: "
            "cd.tl.name(adata, model)."
        )
    return model.trained


def read_cells(adata: ad.AnnData, trained: Trained) -> Cells:
    """Read measured or predicted cells with the model's genes in the model's order.

    InputError if genes are missing, or counts or columns cannot be used; UnknownNameError if a
    column or layer does not exist.
    """
    return Cells.from_anndata(adata, query_fields(adata, trained.fields), genes=trained.genes)


def measured_cells(adata: ad.AnnData) -> tuple[Cells, Fields]:
    """Read perturbed and control cells, and what their columns mean, for tools without a model.

    InputError if `adata` was not set up with perturbations, no cell is a control, or counts or
    columns cannot be used; UnknownNameError if a column or layer does not exist.
    """
    fields = Fields.from_anndata(adata)
    if fields.perturbation_key is None:
        raise InputError(
            "adata was set up without perturbation_key, so no cell is known to be perturbed; call "
            "CellDiT.setup_anndata(adata, perturbation_key=...)."
        )
    cells = Cells.from_anndata(adata, fields)
    if not cells.is_control.any():
        raise InputError(
            f"No cell of adata is labelled {fields.control!r}, with which perturbed ones are "
            "compared, so add such cells."
        )
    return cells, fields


def writable(adata: ad.AnnData, key_added: object, copy: bool | None = None) -> ad.AnnData:
    """The AnnData to write to under a name: a copy in memory, or `adata` itself.

    Of tools that make no copies `copy` is None. InputError if `adata` is no AnnData, or is backed
    by a file and no copy is asked for, or if `key_added` is no name.
    """
    check_anndata(adata, "adata")
    check_key(key_added)
    if copy:
        check_matrices(adata, "adata")  # of a view a copy cuts all of them
        return adata.to_memory() if adata.isbacked else adata.copy()
    if adata.isbacked:
        instead = "" if copy is None else "pass copy=True, or "
        raise InputError(
            f"adata is backed by a file, to which results are not written; {instead}bring it into "
            "memory with adata = adata.to_memory()."
        )
    return adata


def text_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Name rows by text from the start, since a file keeps their names as text."""
    table.index = table.index.astype(str)
    return table


def with_symbols(table: pd.DataFrame, var: pd.DataFrame) -> pd.DataFrame:
    """Put a column ``symbol`` beside ``gene`` where genes have one that is not their name."""
    names = GeneNames.of(var, None)
    if names.differ:
        table.insert(table.columns.get_loc("gene") + 1, "symbol", table["gene"].map(names.symbol))
    return table


def store(adata: ad.AnnData, key: str, entries: Mapping[str, Any]) -> None:
    """Write to ``uns[key]`` beside what stands there, such as the setup of ``uns["celldit"]``."""
    before = adata.uns.get(key)
    others = dict(before) if isinstance(before, Mapping) else {}
    adata.uns[key] = {**others, **entries}
