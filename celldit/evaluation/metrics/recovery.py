"""How well a prediction's test of every gene recovers the truly differential ones."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from celldit.evaluation.metrics.differential import ALPHA, DifferentialExpression

__all__ = ["de_pr_auc", "de_precision", "de_recall", "de_roc_auc", "de_spearman"]


def de_precision(
    predicted: DifferentialExpression,
    true: DifferentialExpression,
    alpha: float = ALPHA,
    k: int | None = None,
) -> float:
    """Share of the predicted differential genes among as many top true ones.

    cell-eval2's ``de_wilcoxon_precision``, or ``precision_topk`` for the k predicted genes with the
    largest fold change.

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

    cell-eval2's ``de_wilcoxon_sig_recall``.

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

    cell-eval2's ``de_wilcoxon_lfc_spearman``.

    Returns
    -------
    float
        In [-1, 1]; NaN with fewer than two such genes, or where all changes are the same.
    """
    genes = true.significant(alpha)
    sides = [side.log2_fold_change[genes] for side in (predicted, true)]
    if genes.size < 2 or any(np.ptp(changes) == 0 for changes in sides):
        return float("nan")
    return float(stats.spearmanr(*sides).statistic)


def de_roc_auc(
    predicted: DifferentialExpression, true: DifferentialExpression, alpha: float = ALPHA
) -> float:
    """Chance that a true differential gene has a lower predicted q value than another gene.

    The area under the ROC curve, ties counting half; cell-eval2's ``de_wilcoxon_roc_auc``.

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
    cell-eval2's ``de_wilcoxon_pr_auc``.

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
    """Of the tested genes: whether they truly differ, and what the prediction's tests say."""
    tested_G = np.isfinite(true.q_value)
    # A gene that the prediction's controls hardly express was not found to differ.
    q_G = np.nan_to_num(predicted.q_value[tested_G], nan=1.0)
    # On a scale of powers, as cell-eval2: values that differ by rounding alone tie there.
    return true.q_value[tested_G] < alpha, np.log10(np.maximum(q_G, np.nextafter(0.0, 1.0)))
