"""The ceiling: how well one half of the measured cells predicts the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd

from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.catalogue import METRICS, resolve
from celldit.evaluation.denoise import denoise
from celldit.evaluation.evaluate import warn_not_scored
from celldit.evaluation.task import Task


def ceiling(
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    metrics: Sequence[str] | str | None = None,
    denoised: bool = False,
    n_repeats: int = 5,
    min_cells: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Score one half of each condition's measured cells as a prediction of the other half.

    What repeating the experiment, with half the cells, would score. Both halves have the same
    number of cells and control cells of their own; the values are averaged over random splits.

    Parameters
    ----------
    truth, control, metrics, min_cells
        As in :func:`celldit.evaluation.evaluate`; a half with fewer than ``min_cells`` cells is not
        scored.
    denoised
        Whether the half that predicts is drawn towards the mean effect of its context, as far as
        its own noise says. A model that pools what perturbations have in common can do the same, so
        a good one may pass the plain half; it should not pass this one.
    n_repeats
        Random splits.
    seed
        Of the splits.

    Returns
    -------
    pandas.DataFrame
        As :func:`celldit.evaluation.evaluate` returns.

    Raises
    ------
    InputError
        As :func:`celldit.evaluation.evaluate`, or if ``n_repeats`` is not above 0.
    UnknownNameError
        If a metric or a column is not known.

    Examples
    --------
    >>> table = cd.tl.ceiling(adata, adata, metrics=["pearson"])
    >>> list(table.columns)
    ['perturbation', 'context', 'metric', 'value']
    """
    names = resolve(metrics)
    if n_repeats < 1:
        raise InputError(f"n_repeats must be above 0, but is {n_repeats}.")
    task = Task.prepare(truth, control, seed=seed)
    tables = []
    for repeat in range(n_repeats):
        half, first = task.halved(seed + repeat)
        assert half.predicted_control is not None
        if denoised:
            first = denoise(first, half.predicted_control)
        # Drawn towards the mean, a half's noise is part of the prediction and no longer known.
        drawn = None if denoised else dict.fromkeys(first.conditions(), math.inf)
        tables.append(half.score(first, names, min_cells=min_cells, drawn_from=drawn))
    table = average_tables(tables)
    warn_not_scored(table)
    return table


def average_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average tables of the same conditions and metrics, row by row; NaN only where all are."""
    values = np.stack([table["value"].to_numpy(dtype=np.float64) for table in tables])
    seen = np.isfinite(values)
    sums = np.where(seen, values, 0.0).sum(axis=0)
    n_seen = seen.sum(axis=0)
    means = np.divide(sums, n_seen, out=np.full(len(sums), np.nan), where=n_seen > 0)
    averaged = tables[0].assign(value=means)
    averaged.attrs = dict(tables[0].attrs)
    return averaged


def score(value: float, baseline: float, replicate: float, metric: str) -> float:
    """Place a value between the best simple baseline (0) and a replicate (1).

    ``(u - b) / (r - b)``, each taken as the distance from the ideal where a measure is better in
    the middle (``variance_ratio``). Not clipped: worse than the baseline is below 0.

    Parameters
    ----------
    value, baseline, replicate
        u, b and r, of the same measure on the same cells.
    metric
        Name of the measure, which says what is better.

    Returns
    -------
    float
        NaN when a value is missing, or when the replicate is no better than the baseline: then
        there is nothing to be gained that could be measured.

    Raises
    ------
    UnknownNameError
        If the measure is not known.
    """
    if metric not in METRICS:
        raise UnknownNameError.among("metric", metric, METRICS)
    u, b, r = (METRICS[metric].loss(float(v)) for v in (value, baseline, replicate))
    return (u - b) / (r - b) if r < b else float("nan")
