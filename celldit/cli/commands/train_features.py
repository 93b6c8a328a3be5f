"""``celldit train --features``: tables of what is known of perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from celldit.errors import FileError, InputError

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

__all__ = ["read_features"]


def read_features(sources: Sequence[str], adata: ad.AnnData | None) -> dict[str, pd.DataFrame]:
    """One table for each source.

    Parameters
    ----------
    sources
        Names of sources of :func:`celldit.pp.gene_features`, GMT files, or ``.csv`` files whose
        first column names the perturbation.
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
    tables: dict[str, pd.DataFrame] = {}
    named = [source for source in sources if not source.lower().endswith(".csv")]
    for source in sources:
        if source not in named:
            tables[Path(source).stem] = _table(Path(source))
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


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise FileError(f"There is no file {path}; check the path.")
    try:
        # A gene named NA is a gene.
        table = pd.read_csv(path, index_col=0, dtype={0: str}, keep_default_na=False)
        return table.set_index(table.index.astype(str))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as .csv ({error}).") from error
