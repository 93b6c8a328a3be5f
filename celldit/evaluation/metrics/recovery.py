"""How well a prediction's test of every gene recovers the truly differential ones."""

from __future__ import annotations

import numpy as np
from scipy import stats

from celldit.evaluation.metrics.differential import ALPHA, DifferentialExpression

__all__ = ["de_pr_auc", "de_precision", "de_recall", "de_roc_auc", "de_spearman"]

# Below this, p values say how many cells there are; cell-eval stops there, too.
SMALLEST_Q = 1e-10
# Changes of genes that one side never shows, which EPSILON kept finite, lie beyond: a factor of
# 32,768. They have no order among themselves.
ABSENT_LFC = 15.0


def de_precision(
    predicted: DifferentialExpression,
    true: DifferentialExpression,
    alpha: float = ALPHA,
    k: int | None = None,
) -> float:
    """Share of the predicted differential genes among as many top true ones.

    cell-eval's ``precision_at_N``, or ``precision_at_k`` for the k predicted genes with the largest
    fold change.

    Returns
    -------
    float
        In [0, 1]; 0 when no gene is predicted to differ, NaN when none truly does.
    """
    expected, found = true.significant(alpha), predicted.significant(alpha)
    if expected.size == 0:
        return float("nan")
    found = found[:k]
    if found.size == 0:
        return 0.0
    return np.intersect1d(expected[: found.size], found).size / found.size


def de_recall(
    predicted: DifferentialExpression, true: DifferentialExpression, alpha: float = ALPHA
) -> float:
    """Share of the true differential genes that are significant in the prediction.

    cell-eval's ``de_sig_genes_recall``.

    Returns
    -------
    float
        In [0, 1]; NaN when no gene is truly differential.
    """
    expected = true.significant(alpha)
    if expected.size == 0:
        return float("nan")
    return float(np.mean(predicted.q_value[expected] < alpha))


def de_spearman(
    predicted: DifferentialExpression, true: DifferentialExpression, alpha: float = ALPHA
) -> float:
    """Spearman correlation of both log2 fold changes over the true differential genes.

    cell-eval's ``de_spearman_lfc_sig``. Genes that one side never shows share a rank.

    Returns
    -------
    float
        In [-1, 1]; NaN with fewer than two such genes, or where all changes are the same.
    """
    genes = true.significant(alpha)
    u_G, v_G = (
        stats.rankdata(np.clip(side.log2_fold_change[genes], -ABSENT_LFC, ABSENT_LFC))
        - (genes.size + 1) / 2
        for side in (predicted, true)
    )
    size = np.sqrt((u_G @ u_G) * (v_G @ v_G))
    return float(u_G @ v_G / size) if size > 0 else float("nan")


def de_roc_auc(
    predicted: DifferentialExpression, true: DifferentialExpression, alpha: float = ALPHA
) -> float:
    """Chance that a true differential gene has a lower predicted q value than another gene.

    The area under the ROC curve, ties counting half; cell-eval's ``roc_auc``.

    Returns
    -------
    float
        In [0, 1], 0.5 by chance; NaN when no gene, or every gene, is truly differential.
    """
    is_true_G, q_G = _labels_and_q(predicted, true, alpha)
    n, m = int(is_true_G.sum()), int((~is_true_G).sum())
    if n == 0 or m == 0:
        return float("nan")
    ranks_G = stats.rankdata(-q_G)
    return float((ranks_G[is_true_G].sum() - n * (n + 1) / 2) / (n * m))


def de_pr_auc(
    predicted: DifferentialExpression, true: DifferentialExpression, alpha: float = ALPHA
) -> float:
    """Average precision when genes are called in the order of their predicted q values.

    The sum over the steps of the curve of (gain in recall) x (precision), without interpolation, as
    ``sklearn.metrics.average_precision_score``; cell-eval's ``pr_auc``.

    Returns
    -------
    float
        In [0, 1], the share of true differential genes by chance; NaN when no gene, or every gene,
        is truly differential.
    """
    is_true_G, q_G = _labels_and_q(predicted, true, alpha)
    n = int(is_true_G.sum())
    if n in (0, is_true_G.size):
        return float("nan")
    order = np.argsort(q_G, kind="stable")
    hits_G = np.cumsum(is_true_G[order])
    # Genes of the same q value are called together, so only the last of them is a step.
    ordered_G = q_G[order]
    steps = np.append(np.flatnonzero(ordered_G[1:] != ordered_G[:-1]), q_G.size - 1)
    hits = hits_G[steps]
    return float(np.sum(np.diff(hits, prepend=0) / n * hits / (steps + 1)))


def _labels_and_q(
    predicted: DifferentialExpression, true: DifferentialExpression, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    # Single precision makes one value of q values that differ by rounding alone, as in cell-eval.
    q_G = np.clip(predicted.q_value.astype(np.float32), SMALLEST_Q, 1.0)
    return true.q_value < alpha, q_G
