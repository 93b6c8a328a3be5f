"""The ceiling: how well one half of the measured cells predicts the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_known, check_whole
from celldit.evaluation.catalogue import CEILING, METRICS, resolve
from celldit.evaluation.evaluate import warn_not_scored
from celldit.evaluation.expression import Expression
from celldit.evaluation.metrics.cells import thin
from celldit.evaluation.task import Task
from celldit.progress import counted


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
    check_whole(n_repeats, "n_repeats")
    check_whole(min_cells, "min_cells", 0)
    task = Task.prepare(truth, control, seed=seed)
    found = score_halves(task, {}, names, n_repeats, min_cells, seed, denoised=denoised)
    warn_not_scored(found[CEILING])
    return found[CEILING]


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
    check_known([metric], METRICS, "metric")
    u, b, r = (METRICS[metric].loss(float(v)) for v in (value, baseline, replicate))
    return (u - b) / (r - b) if r < b else float("nan")


def score_halves(
    task: Task,
    cells: Mapping[str, Expression],
    names: Sequence[str],
    n_repeats: int,
    min_cells: int,
    seed: int,
    *,
    denoised: bool = False,
) -> dict[str, pd.DataFrame]:
    """Score replicate and methods against halves of the truth, averaged over splits.

    With ``denoised`` the replicate is drawn towards the mean effect.
    """
    runs: dict[str, list[pd.DataFrame]] = {method: [] for method in (*cells, CEILING)}
    for repeat in counted(range(int(n_repeats)), "scoring halves", "repeats"):
        half, first = task.halved(seed + repeat)
        sizes = {key: len(rows) for key, rows in first.conditions().items()}
        for method, predicted in cells.items():
            thinned = _thin_to(predicted, sizes, seed + repeat)
            whole = {key: float(len(rows)) for key, rows in predicted.conditions().items()}
            runs[method].append(half.score(thinned, names, min_cells=min_cells, drawn_from=whole))
        if denoised:
            assert half.predicted_control is not None  # a half has controls of its own
            first = denoise(first, half.predicted_control)
        # Drawn towards the mean, a half's noise is part of the prediction and no longer known.
        whole = {} if denoised else dict.fromkeys(sizes, math.inf)
        runs[CEILING].append(half.score(first, names, min_cells=min_cells, drawn_from=whole))
    return {method: _averaged(repeats) for method, repeats in runs.items()}


def _averaged(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average tables of the same conditions and metrics, row by row; NaN only where all are."""
    values = np.ma.masked_invalid([table["value"].to_numpy() for table in tables])
    return tables[0].assign(value=values.mean(axis=0).filled(np.nan))


def _thin_to(cells: Expression, sizes: Mapping[tuple[str, str], int], seed: int) -> Expression:
    return cells.of_conditions(lambda key, rows: rows[thin(len(rows), sizes.get(key, 0), seed)])


def denoise(cells: Expression, control: Expression) -> Expression:
    """Shrink the shift of every condition towards the mean shift of its context.

    Perturbed cells come back, each condition moved as a whole; dense, values below 0 may occur.

    References
    ----------
    Efron & Morris (1973), Stein's estimation rule and its competitors: the weight of a measurement
    is the share of its squared distance from the mean that is not noise.
    """
    bases = {
        context: control.dense(rows).mean(axis=0, dtype=np.float64)
        for context, rows in control.by_context().items()
    }
    moved_NG = cells.dense(np.arange(cells.n_cells))
    conditions = cells.conditions()
    for context in dict.fromkeys(key[1] for key in conditions):
        if context not in bases:
            continue
        keys = [key for key in conditions if key[1] == context]
        means_PG = np.stack(
            [moved_NG[conditions[key]].mean(axis=0, dtype=np.float64) for key in keys]
        )
        centroid_G = means_PG.mean(axis=0) if len(keys) > 1 else bases[context]
        for key, mean_G in zip(keys, means_PG, strict=True):
            rows = conditions[key]
            away_G = mean_G - centroid_G
            square = float(away_G @ away_G)
            noise = (
                float(moved_NG[rows].var(axis=0, ddof=1, dtype=np.float64).sum()) / len(rows)
                if len(rows) > 1
                else square
            )
            kept = max(1.0 - noise / square, 0.0) if square > 0 else 0.0
            moved_NG[rows] += ((kept - 1.0) * away_G).astype(np.float32)
    return replace(cells, log=moved_NG)
