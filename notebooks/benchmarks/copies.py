"""Are generated cells new? Distances to the nearest training cell, against those among these."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from celldit.errors import InputError


def copies(
    generated: np.ndarray,
    training: np.ndarray,
    generated_groups: np.ndarray | None = None,
    training_groups: np.ndarray | None = None,
    *,
    quantile: float = 0.01,
) -> pd.DataFrame:
    """Count the generated cells that lie suspiciously near to a training cell.

    A cell counts as a copy if it is nearer to a training cell of its group than training cells of
    the group are to each other, but for the nearest `quantile` of these. Of cells that are as new
    as real ones about that share, or fewer, is counted.

    Parameters
    ----------
    generated
        Generated cells, shape (M, D), such as log expression in principal components.
    training
        Training cells in the same coordinates, shape (N, D).
    generated_groups, training_groups
        Group of each cell, such as its type, shapes (M,) and (N,); None for a single group.
    quantile
        Of the distances among training cells.

    Returns
    -------
    DataFrame
        One row per group of the training cells: ``n_training``, ``n_generated``,
        ``median_distance`` of a generated cell to the nearest training cell,
        ``median_among_training``, ``threshold``, ``n_copies``, ``share_copies``. A group of one
        training cell has no distance, and NaN for what needs it.

    Raises
    ------
    InputError
        If the shapes do not fit.

    References
    ----------
    Alaa et al. How faithful is your synthetic data? ICML 2022 (the authenticity of a sample).
    """
    if generated.ndim != 2 or training.ndim != 2 or generated.shape[1] != training.shape[1]:
        raise InputError(
            f"generated has shape {generated.shape} and training {training.shape}; both must be "
            "cells in the same coordinates."
        )
    ours = _groups(generated_groups, len(generated), "generated_groups")
    theirs = _groups(training_groups, len(training), "training_groups")
    rows = []
    for group in sorted(set(theirs)):
        own, known = generated[ours == group], training[theirs == group]
        among = _among(known)
        threshold = float(np.quantile(among, quantile)) if len(among) else np.nan
        to_known = np.zeros(0)
        if len(own):
            search = NearestNeighbors(n_neighbors=1).fit(known)
            to_known = search.kneighbors(own)[0][:, 0]
        n_copies = float((to_known < threshold).sum()) if len(among) else np.nan
        rows.append(
            {
                "group": group,
                "n_training": len(known),
                "n_generated": len(own),
                "median_distance": float(np.median(to_known)) if len(own) else np.nan,
                "median_among_training": float(np.median(among)) if len(among) else np.nan,
                "threshold": threshold,
                "n_copies": n_copies,
                "share_copies": n_copies / len(own) if len(own) else np.nan,
            }
        )
    return pd.DataFrame(rows).set_index("group")


def _among(cells: np.ndarray) -> np.ndarray:
    """Distance of each cell to the nearest other one."""
    if len(cells) < 2:
        return np.zeros(0)
    search = NearestNeighbors(n_neighbors=1).fit(cells)
    return np.asarray(search.kneighbors()[0][:, 0])


def _groups(groups: np.ndarray | None, n: int, name: str) -> np.ndarray:
    if groups is None:
        return np.full(n, "all", dtype=object)
    if len(groups) != n:
        raise InputError(f"{name} has {len(groups)} entries for {n} cells; give one for each.")
    return np.asarray(groups).astype(str)
