"""Who becomes whom between two times."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from celldit.arguments import check_whole
from celldit.data.disk.pointers import check_matrices
from celldit.data.labels.columns import obs_column
from celldit.errors import InputError
from celldit.model import CellDiT
from celldit.tl.cells import read_cells, trained_parts, writable

N_NEIGHBORS = 15


def fate_map(
    adata: ad.AnnData,
    model: CellDiT,
    *,
    groupby: str,
    start: float,
    end: float,
    key_added: str = "fate_map",
    max_cells: int = 1_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Say which groups of cells become which between two times.

    Measured cells of time `start` are followed to `end` by :meth:`celldit.CellDiT.trajectory`, and
    each shares itself among the groups of the measured cells nearest to where it arrives. With
    `end` before `start` the table says where groups come from. It shows how the model connects two
    snapshots: nobody saw one cell twice, and cells that divide or die count as one.

    Parameters
    ----------
    adata
        Measured cells of both times, with the model's genes and columns.
    model
        A trained model of several times.
    groupby
        Column of ``obs`` with the groups, such as ``"cell_type"``.
    start, end
        Two times of `adata`.
    key_added
        Key in ``uns``.
    max_cells
        Most cells of either time that are used; more are thinned.
    seed
        Of the thinning and the drawn counts.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``: a row for each group at `start`, a column for each at
        `end`; rows sum to 1.

    Raises
    ------
    InputError
        If the model knows no time, or a time has no cells.
    UnknownNameError
        If there is no such column.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> fates = cd.tl.fate_map(
    ...     adata, model, groupby="cell_type", start=10, end=11
    ... )                                                       # doctest: +SKIP
    >>> cd.pl.fate_map(fates)                                   # doctest: +SKIP
    """
    trained = trained_parts(model)
    writable(adata, key_added)
    if trained.fields.time_key is None:
        raise InputError("fate_map() needs a model that was set up with time_key=.")
    group_N = obs_column(adata, groupby, "groupby").astype(str).to_numpy()
    check_whole(max_cells, "max_cells")
    times = read_cells(adata, trained).times
    assert times is not None
    rng = np.random.default_rng(seed)
    rows = []
    for time in (start, end):
        own = np.flatnonzero(times == float(time))
        if len(own) == 0:
            known = ", ".join(f"{t:g}" for t in np.unique(times))
            raise InputError(f"No cell of adata is of time {time:g}; its times are {known}.")
        rows.append(np.sort(rng.permutation(own)[:max_cells]))
    check_matrices(adata, "adata")
    first, last = (adata[own].copy() for own in rows)
    followed = model.trajectory(first, times=[float(end)], seed=seed)
    z_MF = model.get_latent_representation(last)
    k = min(N_NEIGHBORS, len(z_MF))
    near = NearestNeighbors(n_neighbors=k).fit(z_MF)
    near_Nk = near.kneighbors(followed.obsm["X_celldit"], return_distance=False)
    before, after = (group_N[own] for own in rows)
    pairs = pd.crosstab(np.repeat(before, k), after[near_Nk].ravel(), normalize="index")
    table = pairs.rename_axis(index=f"{groupby} at {start:g}", columns=f"{groupby} at {end:g}")
    adata.uns[key_added] = table.rename_axis(index=None, columns=None)
    return table
