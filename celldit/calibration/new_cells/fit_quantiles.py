"""Compare counts of measured and of drawn cells for the recalibration by quantiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from celldit.calibration.new_cells.quantiles import TINY, CountQuantiles, in_steps

# Cells of about one size: at least so many, in at most so many groups.
CELLS_PER_GROUP, MAX_GROUPS = 150, 8
PRIOR_CELLS = 25.0
# Counts up to here are told apart; further ones in classes, each this much wider than the last.
SINGLE_COUNTS, WIDER = 16, 1.2
# Drawn cells of a group that say which zeros leave.
SILENT_CELLS, SILENT_HALVINGS = 400, 14


class Drawn(NamedTuple):
    """M drawn cells: counts and what they were drawn from, (M, G), and size factors, (M,)."""

    counts_MG: np.ndarray
    expected_MG: np.ndarray
    size_M: np.ndarray


def fit_quantiles(
    measured_NG: np.ndarray,
    size_N: np.ndarray,
    drawn: Drawn,
    sizes: np.ndarray,
    n_states: int,
) -> CountQuantiles:
    """Compare counts of N measured cells with those of drawn ones.

    Parameters
    ----------
    measured_NG, size_N
        Measured counts, and the size factors of the cells.
    drawn
        Drawn cells.
    sizes
        Size factors of all cells of training, of which those measured may be a sample.
    n_states
        How many states the model has.
    """
    edges_K = _edges(max(measured_NG.max(initial=0), drawn.counts_MG.max(initial=0)))
    log_size_L = _bounds(_log(size_N), _log(sizes))
    of_measured = _members(_log(size_N), log_size_L)
    of_drawn = _members(_log(drawn.size_M), log_size_L)
    found = []
    for own_N, own_M in zip(of_measured, of_drawn, strict=True):
        counts_MG = drawn.counts_MG[own_M]
        drawn_GK = _histogram(counts_MG, edges_K) / max(len(own_M), 1)
        measured_GK = PRIOR_CELLS * drawn_GK
        if len(own_M):
            measured_GK += _histogram(measured_NG[own_N], edges_K)
        shares = _cumulative(drawn_GK), _cumulative(measured_GK)
        leave_G = 1 - shares[1][:, 1] / shares[0][:, 1].clip(TINY)
        some = slice(None, None, max(len(own_M) // SILENT_CELLS, 1))
        found.append((*shares, _silent(drawn.expected_MG[own_M[some]], counts_MG[some], leave_G)))
    drawn_LGK, measured_LGK, silent_LG = (np.stack(each) for each in zip(*found, strict=True))
    silent_LG = silent_LG.astype(np.float32)
    # As they will be stored, so that a loaded model says the same.
    shares = in_steps(drawn_LGK), in_steps(measured_LGK)
    return CountQuantiles(edges_K, log_size_L, *shares, silent_LG, n_states)


def _edges(most: float) -> np.ndarray:
    edges = list(range(SINGLE_COUNTS + 1))
    while edges[-1] <= most:
        edges.append(int(np.ceil(edges[-1] * WIDER)))
    return np.array(edges, dtype=np.int64)


def _log(size_N: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(size_N.astype(np.float64)))


def _bounds(log_size_N: np.ndarray, log_sizes: np.ndarray) -> np.ndarray:
    """Where groups begin and the last one ends, (L + 1,): between sizes that differ, none empty."""
    n_groups = int(np.clip(len(log_size_N) // CELLS_PER_GROUP, 1, MAX_GROUPS))
    distinct = np.unique(log_size_N)
    inner = np.quantile(log_size_N, np.linspace(0, 1, n_groups + 1)[1:-1])
    after = np.unique(np.searchsorted(distinct, inner))
    after = after[after > 0]
    middles = (distinct[after - 1] + distinct[after]) / 2
    return np.array([log_sizes.min(), *middles, log_sizes.max()])


def _members(log_size_N: np.ndarray, log_size_L: np.ndarray) -> list[np.ndarray]:
    group_N = np.searchsorted(log_size_L[1:-1], log_size_N, side="right")
    return [np.flatnonzero(group_N == group) for group in range(len(log_size_L) - 1)]


def _histogram(counts_NG: np.ndarray, edges_K: np.ndarray) -> np.ndarray:
    """Cells by gene and class, (G, K - 1)."""
    n_genes, n_classes = counts_NG.shape[1], len(edges_K) - 1
    class_NG = np.searchsorted(edges_K, counts_NG, side="right") - 1
    place_NG = class_NG + n_classes * np.arange(n_genes)
    filled = np.bincount(place_NG.ravel(), minlength=n_genes * n_classes)
    return filled.reshape(n_genes, n_classes).astype(np.float64)


def _silent(expected_MG: np.ndarray, counts_MG: np.ndarray, leave_G: np.ndarray) -> np.ndarray:
    """The a_G with which zeros leave by min(1, p m / a), m their expectation, p on average."""
    is_zero_MG = counts_MG == 0
    zeros_G = is_zero_MG.sum(0).clip(1)
    mean_G = (expected_MG * is_zero_MG).sum(0) / zeros_G + TINY
    low_G, high_G = np.log(mean_G) - 7, np.log(mean_G)
    for _ in range(SILENT_HALVINGS):
        middle_G = (low_G + high_G) / 2
        odds_MG = np.minimum(expected_MG * (leave_G.clip(0) / np.exp(middle_G)), 1)
        too_few_G = (odds_MG * is_zero_MG).sum(0) / zeros_G < leave_G
        low_G = np.where(too_few_G, low_G, middle_G)
        high_G = np.where(too_few_G, middle_G, high_G)
    return np.asarray(np.where(leave_G > 0, np.exp(high_G), mean_G))


def _cumulative(cells_GK: np.ndarray) -> np.ndarray:
    """Share of cells below each edge, (G, K); without cells, all of them in the lowest class."""
    below_GK = np.concatenate([np.zeros((len(cells_GK), 1)), cells_GK.cumsum(1)], axis=1)
    empty_G = below_GK[:, -1] == 0
    below_GK[empty_G, 1:] = 1.0
    return (below_GK / below_GK[:, -1:]).astype(np.float32)
