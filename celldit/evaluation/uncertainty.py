"""What cells can tell: how far a score moves with others, and which effects are there at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
from scipy import stats
from scipy.spatial.distance import cdist

from celldit.arguments import check_share, check_whole
from celldit.evaluation.catalogue import METRICS, without_counts
from celldit.evaluation.evaluate import warn_not_scored
from celldit.evaluation.expression import Expression
from celldit.evaluation.metrics.cells import thin
from celldit.evaluation.task import Task

#: Unbiased estimates of a distance may fall below that of a perfect prediction; others may not.
_UNBIASED = frozenset({"nmse", "energy", "mmd", "correlation_error"})
#: Defaults of :func:`detectable`, which reports take, too.
_PERMUTATIONS, _ALPHA, _MAX_CELLS = 200, 0.05, 500


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
    names = without_counts(metrics)
    check_whole(n_resamples, "n_resamples", 2)
    check_share(level, "level")
    check_whole(min_cells, "min_cells", 0)
    task = Task.prepare(truth, control, seed=seed)
    result = intervals_of(
        task,
        task.read(predicted),
        names,
        n_resamples=n_resamples,
        level=level,
        min_cells=min_cells,
        seed=seed,
    )
    warn_not_scored(result)
    return result


def intervals_of(
    task: Task,
    cells: Expression,
    names: Sequence[str],
    *,
    n_resamples: int,
    level: float = 0.9,
    min_cells: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a prediction that was read, with intervals; see :func:`intervals`."""
    table = task.score(cells, names, min_cells=min_cells)
    rng = np.random.default_rng(seed)
    keys = ["perturbation", "context", "metric"]
    rows = pd.MultiIndex.from_frame(table[keys])
    drawn = np.empty((int(n_resamples), len(table)))
    for i in range(len(drawn)):
        half = replace(task, truth=_half(task.truth, rng), control=_half(task.control, rng))
        # Conditions that are scored have cells enough; their halves need not be asked again.
        scores = half.score(_half(cells, rng), names, min_cells=max(min_cells // 2, 1))
        drawn[i] = scores.set_index(keys)["value"].reindex(rows).to_numpy(dtype=np.float64)
    drawn[:, table["value"].isna().to_numpy()] = np.nan
    low, high = _around(table["value"].to_numpy(), drawn, level)
    best = table["metric"].map({n: m.ideal for n, m in METRICS.items()}).to_numpy(dtype=float)
    kinds = table["metric"].map({n: m.better for n, m in METRICS.items()}).to_numpy()
    bounded = (kinds == "lower") & ~table["metric"].isin(_UNBIASED).to_numpy()
    low = np.where(bounded, np.maximum(low, best), low)
    high = np.where(kinds == "higher", np.minimum(high, best), high)
    return table.assign(low=low, high=high)


def _around(
    value_C: np.ndarray, drawn_RC: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """The value, plus the scatter of resamples about their own mean."""
    shown = np.isfinite(drawn_RC).sum(axis=0) >= 2
    low, high = np.full((2, len(value_C)), np.nan)
    if not shown.any():
        return low, high
    scatter = drawn_RC[:, shown] - np.nanmean(drawn_RC[:, shown], axis=0)
    ends = np.nanquantile(scatter, [(1 - level) / 2, (1 + level) / 2], axis=0)
    low[shown], high[shown] = value_C[shown] + ends[0], value_C[shown] + ends[1]
    return low, high


def _half(cells: Expression, rng: np.random.Generator) -> Expression:
    return cells.of_conditions(lambda _, rows: rows[_rows(len(rows), rng)])


def _rows(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(n)[: max(n // 2, 1)]


def detectable(
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    n_permutations: int = _PERMUTATIONS,
    alpha: float = _ALPHA,
    min_cells: int = 10,
    max_cells: int = _MAX_CELLS,
    seed: int = 0,
) -> pd.DataFrame:
    """Test which conditions differ from their control cells.

    Conditions without a measurable effect add nothing but noise to an average over conditions. The
    energy distance to the control cells of the same context, in principal components, is compared
    with those after permuting the labels of the cells.

    Parameters
    ----------
    truth, control
        As in :func:`celldit.evaluation.evaluate`.
    n_permutations
        Permutations; the smallest p-value is 1 / (n_permutations + 1).
    alpha
        False discovery rate (Benjamini and Hochberg) over the conditions.
    min_cells
        Conditions with fewer perturbed or control cells are not tested.
    max_cells
        Most cells of either kind in a test; more are thinned.
    seed
        Of permutations and thinning.

    Returns
    -------
    pandas.DataFrame
        ``perturbation``, ``context``, ``n_cells``, ``energy``, ``p_value``, ``q_value``,
        ``detectable``; one row for each condition, NaN and False where it was not tested.

    Raises
    ------
    InputError, UnknownNameError
        As :func:`celldit.evaluation.evaluate`, or if ``n_permutations`` is not above 0.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.detectable(measured, measured, n_permutations=50)
    >>> bool(table["detectable"].all())
    True
    """
    check_whole(n_permutations, "n_permutations")
    check_share(alpha, "alpha")
    check_whole(min_cells, "min_cells", 0)
    check_whole(max_cells, "max_cells", 2)
    return detectable_of(
        Task.prepare(truth, control, seed=seed),
        n_permutations=int(n_permutations),
        alpha=alpha,
        min_cells=min_cells,
        max_cells=int(max_cells),
        seed=seed,
    )


def detectable_of(
    task: Task,
    *,
    min_cells: int,
    seed: int,
    n_permutations: int = _PERMUTATIONS,
    alpha: float = _ALPHA,
    max_cells: int = _MAX_CELLS,
) -> pd.DataFrame:
    """Test the measured conditions of a task; see :func:`detectable`."""
    controls = task.control.by_context()
    rows: list[tuple] = []
    for (perturbation, context), cells in task.truth.conditions().items():
        base = controls.get(context, np.empty(0, dtype=np.int64))
        energy = p_value = float("nan")
        if min(len(cells), len(base)) >= max(min_cells, 2):
            x_ND, y_MD = (
                task.components.transform(side.log[rows[thin(len(rows), max_cells, seed)]])
                for side, rows in ((task.truth, cells), (task.control, base))
            )
            energy, p_value = permutation_p_value(x_ND, y_MD, n_permutations, seed)
        rows.append((perturbation, context, len(cells), energy, p_value))
    table = pd.DataFrame(rows, columns=["perturbation", "context", "n_cells", "energy", "p_value"])
    tested = table["p_value"].notna().to_numpy()
    q_values = np.full(len(table), np.nan)
    if tested.any():
        q_values[tested] = stats.false_discovery_control(table["p_value"].to_numpy()[tested])
    return table.assign(q_value=q_values, detectable=q_values < alpha)


def permutation_p_value(
    x_ND: np.ndarray, y_MD: np.ndarray, n_permutations: int = _PERMUTATIONS, seed: int = 0
) -> tuple[float, float]:
    """Energy distance of samples (N, D) and (M, D), and how often permuted labels give as much.

    All (N + M)^2 distances are held in memory. The p value is ``(1 + #{permuted >= measured}) / (1
    + n_permutations)``.
    """
    n, m = len(x_ND), len(y_MD)
    both = np.concatenate([x_ND, y_MD])
    distances = cdist(both, both)
    rng = np.random.default_rng(seed)
    labels = np.zeros((n_permutations + 1, n + m))
    labels[0, :n] = 1.0
    for row in labels[1:]:
        row[rng.permutation(n + m)[:n]] = 1.0
    # With s = D z: z's = sum within x, (1 - z)'s = sum between; the rest is within y.
    sums = labels @ distances
    within_x = np.einsum("pn,pn->p", labels, sums)
    between = sums.sum(axis=1) - within_x
    within_y = distances.sum() - within_x - 2.0 * between
    energy = 2.0 * between / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))
    # Equal splits in another order must count as equal despite rounding.
    reached = np.count_nonzero(energy[1:] >= energy[0] - 1e-9 * abs(energy[0]))
    return float(energy[0]), (1 + reached) / (1 + n_permutations)
