"""Matching the genes of two data sets by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from celldit.errors import InputError, examples

__all__ = ["check_unique_genes", "match_genes"]


def check_unique_genes(names: Sequence[str]) -> None:
    """Raise InputError if a gene name occurs twice."""
    index = pd.Index(names).astype(str)
    doubled = list(dict.fromkeys(index[index.duplicated()]))
    if doubled:
        raise InputError(
            f"{len(doubled)} gene names occur more than once in adata.var_names "
            f"({examples(doubled)}); call adata.var_names_make_unique() first."
        )


def match_genes(available: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Find where each wanted gene stands.

    Parameters
    ----------
    available
        Gene names of the data.
    wanted
        Gene names in the order wanted.

    Returns
    -------
    numpy.ndarray of int, shape (len(wanted),)

    Raises
    ------
    InputError
        If genes are missing or a wanted one stands there twice; says how many and which.
    """
    index = pd.Index(available).astype(str)
    # Doubled names that nobody asks for do no harm.
    check_unique_genes(index[index.isin(list(wanted))])
    first = pd.Series(np.arange(len(index)), index=index)
    positions = first[~index.duplicated()].reindex(list(wanted))
    missing = list(positions.index[positions.isna()])
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(positions)} genes needed are not in adata.var_names "
            f"({examples(missing)}); the data name theirs {examples(index[:3])}. Add the missing "
            "genes, or rename the data's genes to match."
        )
    return positions.to_numpy(dtype=np.int64)
