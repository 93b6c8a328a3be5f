"""How well a prediction's test of every gene recovers the truly differential ones."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

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
    sides = [
        np.clip(side.log2_fold_change[genes], -ABSENT_LFC, ABSENT_LFC) for side in (predicted, true)
    ]
    if genes.size < 2 or any(np.ptp(changes) == 0 for changes in sides):
        return float("nan")
    return float(stats.spearmanr(*sides).statistic)


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
    if is_true_G.all() or not is_true_G.any():
        return float("nan")
    return float(roc_auc_score(is_true_G, -q_G))


def de_pr_auc(
    predicted: DifferentialExpression, true: DifferentialExpression, alpha: float = ALPHA
) -> float:
    """Average precision when genes are called in the order of their predicted q values.

    The sum over the steps of the curve of (gain in recall) x (precision), without interpolation;
    cell-eval's ``pr_auc``.

    Returns
    -------
    float
        In [0, 1], the share of true differential genes by chance; NaN when no gene, or every gene,
        is truly differential.
    """
    is_true_G, q_G = _labels_and_q(predicted, true, alpha)
    if is_true_G.all() or not is_true_G.any():
        return float("nan")
    return float(average_precision_score(is_true_G, -q_G))


def _labels_and_q(
    predicted: DifferentialExpression, true: DifferentialExpression, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    # Single precision makes one value of q values that differ by rounding alone, as in cell-eval.
    q_G = np.clip(predicted.q_value.astype(np.float32), SMALLEST_Q, 1.0)
    return true.q_value < alpha, q_G
