"""``celldit train --features``: tables of what is known of perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celldit.errors import InputError

if TYPE_CHECKING:
    import anndata as ad

__all__ = ["read_features"]


def read_features(sources: Sequence[str], adata: ad.AnnData | None) -> dict[str, Any]:
    """One table for each source.

    Parameters
    ----------
    sources
        Names of sources of :func:`celldit.pp.gene_features`, GMT files, or files as
        :mod:`celldit.effects.features.files` reads them.
    adata
        The training cells, set up; None where they stay on disk.

    Raises
    ------
    FileError
        If a file cannot be read.
    InputError
        If co-expression is asked of cells that stay on disk.
    UnknownNameError
        If a source is not known.
    """
    from celldit.effects.features.files import ENDINGS, table_of

    tables: dict[str, Any] = {}
    named = [source for source in sources if not source.lower().endswith(ENDINGS)]
    for source in sources:
        if source not in named:
            tables[Path(source).stem] = table_of(source)
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
        from celldit.pp import gene_features

        tables.update(gene_features(adata, named, allow_missing=True))
        # It leaves its result in uns, which training does not read.
        del adata.uns["gene_features"]
    return tables
