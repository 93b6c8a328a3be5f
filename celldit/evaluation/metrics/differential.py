"""Differential expression, and how well a prediction reproduces it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

ALPHA = 0.05
# Five counts per million, in the unit of log expression: counts per 10,000.
LEAST_EXPRESSION = 0.05
# Keeps fold changes finite when one side never shows a gene; too small to change any other.
EPSILON = 1e-11
# Absence of a gene is a large change, not an infinite error: 10 is a factor of 1,024.
LARGEST_LFC = 10.0
# Genes that are tested at a time: ranks take many times the memory of the cells.
BLOCK = 500


@dataclass(frozen=True, eq=False)
class DifferentialExpression:
    """The test of perturbed against control cells, gene by gene; of P perturbations shape (P, G).

    Parameters
    ----------
    log2_fold_change
        log2 of the ratio of mean expression, perturbed over control, shape (G,).
    p_value
        Two-sided Wilcoxon rank-sum test, shape (G,); NaN for genes that control cells hardly
        express, which are not tested.
    q_value
        False discovery rate by Benjamini and Hochberg over the tested genes, shape (G,); NaN for
        others.
    """

    log2_fold_change: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray

    @property
    def called(self) -> np.ndarray:
        """Whether the false discovery rate of a gene is below 5%, shape (G,)."""
        return self.q_value < ALPHA

    def significant(self) -> np.ndarray:
        """Positions of the genes with a false discovery rate below 5%, largest change first."""
        found = np.flatnonzero(self.called)
        return found[np.argsort(-np.abs(self.log2_fold_change[found]), kind="stable")]


def differential_expression(
    perturbed_NG: np.ndarray, control_KG: np.ndarray
) -> DifferentialExpression:
    """Compare perturbed with control cells by Wilcoxon's rank-sum test.

    The normal approximation of Mann and Whitney's U with correction for ties, without one for
    continuity, as scanpy and cell-eval2 have it; a gene that is constant gets p = 1. Genes with
    less than five counts per million in the control cells are not tested: which genes are is then a
    fact of the experiment, the same for every prediction.

    Parameters
    ----------
    perturbed_NG, control_KG
        Log expression (natural log of 1 + normalised counts), shapes (N, G) and (K, G).

    Returns
    -------
    DifferentialExpression
        With G genes.
    """
    n_genes = control_KG.shape[1]
    p_G, mean_G, base_G = (np.empty(n_genes) for _ in range(3))
    for start in range(0, n_genes, BLOCK):
        block = slice(start, start + BLOCK)
        x_NB, y_KB = (side[:, block].astype(np.float64) for side in (perturbed_NG, control_KG))
        p_G[block] = _test(perturbed_NG[:, block], control_KG[:, block])
        mean_G[block], base_G[block] = _mean_expression(x_NB), _mean_expression(y_KB)
    tested_G = base_G > LEAST_EXPRESSION
    q_G = np.full_like(p_G, np.nan)
    if tested_G.any():
        q_G[tested_G] = stats.false_discovery_control(p_G[tested_G])
    p_G[~tested_G] = np.nan
    return DifferentialExpression(
        log2_fold_change=np.log2((mean_G + EPSILON) / (base_G + EPSILON)),
        p_value=p_G,
        q_value=q_G,
    )


def de_overlap(predicted: DifferentialExpression, true: DifferentialExpression) -> float:
    """Share of the true differential genes among as many top predicted ones.

    With N true differential genes, the N predicted ones with the largest absolute fold change among
    the significant ones; cell-eval2's ``de_wilcoxon_overlap``.

    Returns
    -------
    float
        In [0, 1]; NaN when no gene is truly differential.
    """
    expected = true.significant()
    if expected.size == 0:
        return float("nan")
    found = predicted.significant()[: expected.size]
    return np.intersect1d(expected, found).size / expected.size


def de_direction(predicted: DifferentialExpression, true: DifferentialExpression) -> float:
    """Share of the true differential genes whose predicted change has the right sign.

    Returns
    -------
    float
        In [0, 1]; NaN when no gene is truly differential. A predicted change of exactly 0 is wrong.
    """
    genes = true.significant()
    if genes.size == 0:
        return float("nan")
    same = np.sign(predicted.log2_fold_change[genes]) == np.sign(true.log2_fold_change[genes])
    return float(np.mean(same))


def lfc_error(predicted: DifferentialExpression, true: DifferentialExpression) -> float:
    """Mean absolute error of the log2 fold change over the true differential genes.

    Fold changes count up to a factor of 1,024 either way (a gene that is absent on one side).

    Returns
    -------
    float
        In log2 units; NaN when no gene is truly differential.
    """
    genes = true.significant()
    if genes.size == 0:
        return float("nan")
    u_G = np.clip(predicted.log2_fold_change[genes], -LARGEST_LFC, LARGEST_LFC)
    v_G = np.clip(true.log2_fold_change[genes], -LARGEST_LFC, LARGEST_LFC)
    return float(np.mean(np.abs(u_G - v_G)))


def _test(x_NG: np.ndarray, y_KG: np.ndarray) -> np.ndarray:
    """The p values of ``scipy.stats.mannwhitneyu``, to the bit, in a fraction of its time.

    Sorting values takes far less time than sorting positions, as ranks of all cells need them;
    those of one side are looked up.
    """
    n, k = len(x_NG), len(y_KG)
    all_GC = np.sort(np.concatenate([x_NG, y_KG]).T, axis=1)
    starts_GC = np.ones(all_GC.shape, dtype=bool)
    np.not_equal(all_GC[:, 1:], all_GC[:, :-1], out=starts_GC[:, 1:])
    starts = np.flatnonzero(starts_GC)
    tied = np.diff(np.append(starts, all_GC.size)).astype(np.float64)
    ties_G = np.bincount(starts // (n + k), weights=tied**3 - tied, minlength=len(all_GC))
    u_G = np.empty(len(all_GC))
    for g, (all_C, x_N) in enumerate(zip(all_GC, np.sort(x_NG.T, axis=1), strict=True)):
        # Twice the sum of ranks: the mean of the first and the last rank of each value.
        twice = all_C.searchsorted(x_N, "left").sum() + all_C.searchsorted(x_N, "right").sum() + n
        u_G[g] = 0.5 * (twice - n * (n + 1))
    return rank_sum_p_values(u_G, ties_G, n, k)


def rank_sum_p_values(u: np.ndarray, ties: np.ndarray, n: np.ndarray | int, k: int) -> np.ndarray:
    """Two-sided p values of Mann and Whitney's U of n cells against k, ties being sum t^3 - t.

    1 where all values are equal.
    """
    total = n + k
    spread = np.sqrt(n * k / 12 * np.maximum((total + 1) - ties / (total * (total - 1)), 0.0))
    away = np.abs(u - n * k / 2)
    z = np.divide(away, spread, out=np.zeros_like(u), where=spread > 0)
    return np.asarray(2.0 * special.ndtr(-z))


def _mean_expression(log_NG: np.ndarray) -> np.ndarray:
    # Linear baselines predict log expressions below zero; expression is never below zero.
    return np.expm1(np.maximum(log_NG, 0.0)).mean(axis=0)
