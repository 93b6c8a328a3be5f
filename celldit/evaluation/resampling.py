"""What other perturbations would have said: intervals, paired comparisons and headroom.

Cells say how well a condition was measured; perturbations, how far a result carries to others of
their kind. A perturbation is drawn with all its contexts, which share what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from celldit.arguments import check_kind, check_known, check_seed, check_share
from celldit.errors import InputError
from celldit.evaluation.catalogue import CEILING, METRICS

N_RESAMPLES = 2000
#: Classes of :func:`headroom`, in the order in which they are told apart.
CLASSES = ("undetectable", "solved by the baseline", "in reach", "out of reach")


@dataclass(frozen=True)
class Progress:
    """How much of the way from a baseline to a replicate a method closes.

    A `share` of 1 is the replicate, 0 the baseline, below 0 worse than it; NaN where nothing can be
    said. `low` and `high` are its 90% interval over perturbations, of which `n_perturbations` were
    scored; NaN with fewer than two. It is averaged over the `metrics` in which a replicate is
    better than the baseline.
    """

    share: float
    low: float
    high: float
    n_perturbations: int
    metrics: tuple[str, ...]


def progress(
    table: pd.DataFrame,
    method: str,
    baseline: str,
    metrics: Sequence[str],
    *,
    seed: int = 0,
) -> Progress:
    """Average ``(u - b) / (r - b)`` over measures, with a 90% interval over perturbations.

    The table has ``method``, ``perturbation``, ``context``, ``metric``, ``value``, every method on
    equal numbers of cells, as the records that ``compare(..., equal_cells=True)`` leaves in
    ``attrs``; the replicate is the ceiling. UnknownNameError if a method is not in it.
    """
    names = [method, baseline, CEILING]
    sums, counts = [], []
    labels = sorted(set(table["perturbation"]))
    for metric in metrics:
        losses = _losses(table, names, metric)
        by = losses.groupby(level="perturbation")
        sums.append(by.sum().reindex(labels, fill_value=0.0).to_numpy())
        counts.append(by.size().reindex(labels, fill_value=0).to_numpy(dtype=np.float64))
    sums_MPK, counts_MP = np.stack(sums), np.stack(counts)
    whole = _shares(sums_MPK, counts_MP, np.ones((1, len(labels))))
    usable = np.isfinite(whole[:, 0])
    kept = tuple(m for m, good in zip(metrics, usable, strict=True) if good)
    if not kept:
        return Progress(np.nan, np.nan, np.nan, int((counts_MP.sum(axis=0) > 0).sum()), ())
    scored = np.flatnonzero(counts_MP.sum(axis=0) > 0)
    low = high = float("nan")
    if len(scored) > 1:
        rng = np.random.default_rng(seed)
        weight_RP = np.zeros((N_RESAMPLES, len(labels)))
        weight_RP[:, scored] = rng.multinomial(
            len(scored), np.full(len(scored), 1 / len(scored)), size=N_RESAMPLES
        )
        drawn_R = _shares(sums_MPK[usable], counts_MP[usable], weight_RP).mean(axis=0)
        low, high = map(float, np.nanquantile(drawn_R, [0.05, 0.95]))
    return Progress(float(whole[usable, 0].mean()), low, high, len(scored), kept)


def paired(
    table: pd.DataFrame, one: str, other: str, *, level: float = 0.9, seed: int = 0
) -> pd.DataFrame:
    """Compare two methods on the same conditions.

    Parameters
    ----------
    table
        What :func:`celldit.tl.compare` returns, or its ``attrs["by_condition"]``.
    one, other
        Methods.
    level
        Share of the interval.
    seed
        Of the draws.

    Returns
    -------
    pandas.DataFrame
        A row for each metric: ``gain``, by how much nearer to ideal ``one`` is in the mean; its
        interval over perturbations, ``low`` and ``high``; ``better``, the share of perturbations in
        which it is; ``p_value`` of no difference, signs of the perturbations turned at random;
        ``n_perturbations``.

    Raises
    ------
    UnknownNameError
        If a method is not in the table.
    InputError
        If both are the same, or the table does not hold single conditions.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.compare({"celldit": predicted}, measured, measured)
    >>> list(cd.tl.paired(table, "celldit", "ceiling").columns)
    ['gain', 'low', 'high', 'better', 'p_value', 'n_perturbations']
    """
    check_kind(one, str, "one", "the name of a method")
    check_kind(other, str, "other", "the name of a method")
    check_share(level, "level")
    check_seed(seed)
    if one == other:
        raise InputError(f"paired compares two methods, but both are {one!r}.")
    conditions = _conditions(table)
    rng = np.random.default_rng(seed)
    rows = {}
    for metric in dict.fromkeys(conditions["metric"]):
        if metric not in METRICS:
            continue
        losses = _losses(conditions, [one, other], metric).groupby(level="perturbation").mean()
        gain_P = losses[other].to_numpy() - losses[one].to_numpy()
        rows[metric] = _gain(gain_P, level, rng)
    columns = ["gain", "low", "high", "better", "p_value", "n_perturbations"]
    found = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    found.index.name = "metric"
    return found.astype({"n_perturbations": int})


def headroom(
    table: pd.DataFrame, method: str, baseline: str, *, metric: str = "nmse"
) -> pd.DataFrame:
    """Sort conditions by what is left to gain in them.

    Parameters
    ----------
    table
        What :func:`celldit.tl.compare` returns with ``equal_cells=True``, or its
        ``attrs["by_condition"]``.
    method, baseline
        Methods in it.
    metric
        Measure to judge by.

    Returns
    -------
    pandas.DataFrame
        ``perturbation``, ``context``, losses of ``method``, ``baseline`` and ``replicate``,
        ``score`` between the last two, and ``headroom``: ``"undetectable"`` where the effect cannot
        be told from noise, ``"solved by the baseline"`` where a replicate is no better, ``"in
        reach"`` where the method closes half of the way or more, else ``"out of reach"``.

    Raises
    ------
    UnknownNameError
        If a method or metric is not in the table.
    InputError
        If the table does not hold single conditions.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.compare({"celldit": predicted, "none": predicted}, measured, measured)
    >>> set(cd.tl.headroom(table, "celldit", "none")["headroom"])
    {'solved by the baseline'}
    """
    conditions = _conditions(table)
    known = [name for name in dict.fromkeys(conditions["metric"]) if name in METRICS]
    check_known([metric], known, "metric in the table")
    names = [method, baseline, CEILING]
    losses = _losses(conditions, names, metric, dropna=False)
    losses.columns = ["method", "baseline", "replicate"]
    gap = losses["baseline"] - losses["replicate"]
    score = (losses["baseline"] - losses["method"]) / gap.where(gap > 0)
    classes = np.select(
        [losses.isna().any(axis=1), gap <= 0, score >= 0.5], CLASSES[:3], default=CLASSES[3]
    )
    return losses.assign(score=score, headroom=classes).reset_index()


def _conditions(table: pd.DataFrame) -> pd.DataFrame:
    check_kind(table, pd.DataFrame, "table", "what cd.tl.compare returns")
    found = table
    if "by_condition" in table.attrs:
        found = pd.DataFrame(table.attrs["by_condition"])
    if not {"method", "perturbation", "context", "metric", "value"} <= set(found.columns):
        raise InputError(
            "The table does not hold single conditions; pass what cd.tl.compare returned, as it "
            "returned it, with metrics= of single conditions."
        )
    return found


def _losses(
    table: pd.DataFrame, methods: Sequence[str], metric: str, *, dropna: bool = True
) -> pd.DataFrame:
    """Distance from ideal, a condition a row and a method a column."""
    rows = table[table["metric"] == metric]
    wide = rows.pivot_table(
        index=["perturbation", "context"], columns="method", values="value", dropna=False
    )
    check_known(map(str, methods), set(table["method"]), "method in the table")
    for name in methods:
        if name not in wide.columns:
            wide[name] = np.nan
    wide = wide[list(methods)].map(METRICS[metric].loss)
    return wide.dropna() if dropna else wide.dropna(how="all")


def _shares(sums_MPK: np.ndarray, counts_MP: np.ndarray, weight_RP: np.ndarray) -> np.ndarray:
    """Score of each measure on weighted perturbations, shape (M, R); NaN without headroom."""
    n_MR = counts_MP @ weight_RP.T
    means_MRK = np.einsum("rp,mpk->mrk", weight_RP, sums_MPK)
    means_MRK /= np.where(n_MR > 0, n_MR, np.nan)[:, :, None]
    own_MR, base_MR, top_MR = np.moveaxis(means_MRK, 2, 0)
    gap_MR = base_MR - top_MR
    return np.where(gap_MR > 0, (base_MR - own_MR) / np.where(gap_MR > 0, gap_MR, 1.0), np.nan)


def _gain(gain_P: np.ndarray, level: float, rng: np.random.Generator) -> tuple:
    n = len(gain_P)
    if n == 0:
        return (np.nan, np.nan, np.nan, np.nan, np.nan, 0)
    mean = float(gain_P.mean())
    better = float(np.mean(gain_P > 0))
    if n == 1:
        return (mean, np.nan, np.nan, better, np.nan, 1)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES) @ gain_P / n
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    signs = rng.choice([-1.0, 1.0], size=(N_RESAMPLES, n))
    turned = np.abs(signs @ gain_P / n) >= abs(mean) * (1 - 1e-12)
    return (mean, float(low), float(high), better, (1 + turned.sum()) / (1 + N_RESAMPLES), n)
