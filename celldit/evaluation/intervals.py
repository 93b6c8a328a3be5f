"""How far a score would move with other cells of the same experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd

from celldit.errors import InputError
from celldit.evaluation.catalogue import COUNTS, METRICS, resolve
from celldit.evaluation.evaluate import warn_not_scored
from celldit.evaluation.expression import Expression
from celldit.evaluation.task import Task

#: Unbiased estimates of a distance may fall below that of a perfect prediction; others may not.
_UNBIASED = frozenset({"nmse", "energy", "mmd", "correlation_error"})


def intervals(
    predicted: ad.AnnData,
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    metrics: Sequence[str] | str | None = ("pearson", "nmse", "energy"),
    n_resamples: int = 100,
    level: float = 0.9,
    min_cells: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a prediction, with an interval over cells for every score.

    Predicted, measured and control cells are resampled together. Each resample is a random half of
    the cells of every condition, without replacement: its scores scatter about their mean as those
    of repeated experiments do about theirs, and the scatter is put around the score of all cells.
    The usual bootstrap draws some cells twice; two copies of a cell are at distance zero, which
    biases every distance between samples.

    Parameters
    ----------
    predicted, truth, control, metrics, min_cells, seed
        As in :func:`celldit.evaluation.evaluate`.
    n_resamples
        Random halves.
    level
        Share of the interval, between 0 and 1.

    Returns
    -------
    pandas.DataFrame
        As :func:`celldit.evaluation.evaluate` returns, with the columns ``low`` and ``high``.

    Raises
    ------
    InputError, UnknownNameError
        As :func:`celldit.evaluation.evaluate`, or if ``n_resamples`` or ``level`` cannot be used.

    References
    ----------
    Politis, Romano & Wolf (1999), Subsampling, chapter 2. The variance of a mean over a random half
    drawn without replacement, around the mean of all, equals that of the mean of all.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.intervals(predicted, measured, measured, metrics="pearson", n_resamples=20)
    >>> bool(table["value"].between(table["low"], table["high"]).all())
    True
    """
    names = tuple(name for name in resolve(metrics) if name not in COUNTS)
    if n_resamples < 2 or not 0 < level < 1:
        raise InputError(
            "An interval needs n_resamples of at least 2 and a level between 0 and 1; got "
            f"n_resamples={n_resamples} and level={level}."
        )
    task = Task.prepare(truth, control, seed=seed)
    cells = task.read(predicted)
    table = task.score(cells, names, min_cells=min_cells)
    rng = np.random.default_rng(seed)
    drawn = np.empty((n_resamples, len(table)))
    for i in range(n_resamples):
        half = replace(task, truth=_half(task.truth, rng), control=_half(task.control, rng))
        # Conditions that are scored have cells enough; their halves need not be asked again.
        scores = half.score(_half(cells, rng), names, min_cells=max(min_cells // 2, 1))
        drawn[i] = _aligned(scores, table)
    drawn[:, table["value"].isna().to_numpy()] = np.nan
    low, high = _around(table["value"].to_numpy(), drawn, level)
    best = table["metric"].map({n: m.ideal for n, m in METRICS.items()}).to_numpy(dtype=float)
    kinds = table["metric"].map({n: m.better for n, m in METRICS.items()}).to_numpy()
    bounded = (kinds == "lower") & ~table["metric"].isin(_UNBIASED).to_numpy()
    low = np.where(bounded, np.maximum(low, best), low)
    high = np.where(kinds == "higher", np.minimum(high, best), high)
    result = table.assign(low=low, high=high)
    result.attrs = dict(table.attrs)
    warn_not_scored(result)
    return result


def _around(
    value_C: np.ndarray, drawn_RC: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """The value, plus the scatter of resamples about their own mean."""
    shown = np.isfinite(drawn_RC).sum(axis=0) >= 2
    low, high = np.full(len(value_C), np.nan), np.full(len(value_C), np.nan)
    scatter = drawn_RC[:, shown] - np.nanmean(drawn_RC[:, shown], axis=0)
    ends = np.nanquantile(scatter, [(1 - level) / 2, (1 + level) / 2], axis=0)
    low[shown], high[shown] = value_C[shown] + ends[0], value_C[shown] + ends[1]
    return low, high


def _half(cells: Expression, rng: np.random.Generator) -> Expression:
    return cells.of_conditions(lambda _, rows: rows[_rows(len(rows), rng)])


def _rows(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(n)[: max(n // 2, 1)]


def _aligned(scores: pd.DataFrame, like: pd.DataFrame) -> np.ndarray:
    keys = ["perturbation", "context", "metric"]
    found = scores.set_index(keys)["value"]
    return found.reindex(pd.MultiIndex.from_frame(like[keys])).to_numpy(dtype=np.float64)
