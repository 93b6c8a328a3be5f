"""Each measure of a condition equals scipy's, scikit-learn's or POT's on cells of real screens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import pytest
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import mean_absolute_error, mean_squared_error, pairwise_distances
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from sklearn.model_selection import LeaveOneOut, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import Binarizer

from celldit.evaluation import METRICS
from celldit.evaluation.catalogue import FUNCTIONS, OF_PANELS
from celldit.evaluation.condition import Condition
from celldit.evaluation.metrics import differential_expression
from celldit.evaluation.metrics.distances import projections
from celldit.evaluation.task import Task

Both = tuple[np.ndarray, np.ndarray]
CONDITIONS = (("papalexi", "STAT1", "rep_1"), ("norman", "CBL+CNN1", ""))
EXACT = 1e-6


def shifts(c: Condition, genes: np.ndarray | slice = slice(None)) -> Both:
    """Predicted and true shift from the measured control cells."""
    control = c.control_KG.mean(axis=0, dtype=np.float64)
    sides = (c.predicted_NG, c.true_MG)
    u, v = (side.mean(axis=0, dtype=np.float64) - control for side in sides)
    return u[genes], v[genes]


def top(c: Condition) -> np.ndarray:
    """The 20 genes with the largest true shift."""
    return np.argsort(np.abs(shifts(c)[1]))[-20:]


def wilcoxon(cells_NG: np.ndarray, control_KG: np.ndarray) -> Both:
    """log2 fold changes of means, and false discovery rates of genes that controls express."""
    sides = [side.astype(np.float64) for side in (cells_NG, control_KG)]
    with np.errstate(invalid="ignore", divide="ignore"):
        p_G = stats.mannwhitneyu(*sides, axis=0, method="asymptotic", use_continuity=False).pvalue
    over, under = (np.expm1(side).mean(axis=0) + 1e-11 for side in sides)
    tested = under > 0.05
    q_G = np.full(len(p_G), np.nan)
    q_G[tested] = stats.false_discovery_control(np.nan_to_num(p_G[tested], nan=1.0))
    return np.log2(over / under), q_G


def differential(c: Condition) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fold changes and significant genes, largest change first: predicted, then true."""
    found = []
    for side in (c.predicted_NG, c.true_MG):
        change_G, q_G = wilcoxon(side, c.control_KG)
        order = np.argsort(-np.abs(change_G))
        found += [change_G, order[q_G[order] < 0.05]]
    return found[0], found[1], found[2], found[3]


def spaces(c: Condition) -> Both:
    """Principal components of both sides."""
    return c.predicted_ND.astype(np.float64), c.true_MD.astype(np.float64)


def unbiased(values_NN: np.ndarray) -> float:
    """Mean over pairs of different cells."""
    n = len(values_NN)
    return float((values_NN.sum() - np.trace(values_NN)) / (n * (n - 1)))


def energy(c: Condition) -> float:
    x, y = spaces(c)
    between = pairwise_distances(x, y).mean()
    return 2 * between - unbiased(pairwise_distances(x)) - unbiased(pairwise_distances(y))


def mmd(c: Condition) -> float:
    x, y = spaces(c)
    distances = pairwise_distances(y)
    median = np.median(distances[np.triu_indices(len(y), k=1)])
    total = 0.0
    for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
        gamma = 0.5 / (factor * median) ** 2
        within = unbiased(rbf_kernel(x, gamma=gamma)) + unbiased(rbf_kernel(y, gamma=gamma))
        total += within - 2 * rbf_kernel(x, y, gamma=gamma).mean()
    return total / 5


def sliced(c: Condition) -> float:
    x, y = spaces(c)
    directions = projections(x.shape[1], 100, c.seed)
    return float(ot.sliced_wasserstein_distance(x, y, projections=directions.T))


def assignment(c: Condition) -> float:
    """Both sides have as many cells, so that the best transport is an assignment."""
    x, y = spaces(c)
    costs = pairwise_distances(x, y, metric="sqeuclidean")
    return float(np.sqrt(costs[linear_sum_assignment(costs)].mean()))


def overlap(c: Condition) -> float:
    _, found, _, expected = differential(c)
    return len(set(found[: len(expected)]) & set(expected)) / len(expected)


def direction(c: Condition) -> float:
    found, _, true, genes = differential(c)
    return float(np.mean(np.sign(found[genes]) == np.sign(true[genes])))


def fold_change_error(c: Condition) -> float:
    found, _, true, genes = differential(c)
    return float(mean_absolute_error(np.clip(true[genes], -10, 10), np.clip(found[genes], -10, 10)))


def spread(c: Condition) -> float:
    sides = (c.predicted_NG, c.true_MG)
    found, expected = (stats.describe(x.astype(np.float64)).variance.sum() for x in sides)
    return float(found / expected)


def zeros(c: Condition) -> float:
    shares = [1 - Binarizer().fit_transform(x).mean(axis=0) for x in (c.predicted_NG, c.true_MG)]
    return float(mean_absolute_error(*shares))


def correlations(c: Condition) -> float:
    spread_G = np.var(c.true_MG, axis=0, dtype=np.float64)
    chosen = np.argsort(-spread_G, kind="stable")[:100]
    rng = np.random.default_rng(c.seed)
    error = signal = 0.0
    for _ in range(10):
        halves = []
        for side in (c.predicted_NG, c.true_MG):
            order, half = rng.permutation(len(side)), len(side) // 2
            for rows in (order[:half], order[half:]):
                cells = side[rows][:, chosen].astype(np.float64)
                with np.errstate(invalid="ignore", divide="ignore"):
                    found = np.nan_to_num(np.corrcoef(cells, rowvar=False))
                np.fill_diagonal(found, 0.0)
                halves.append(found)
        error += np.sum((halves[0] - halves[2]) * (halves[1] - halves[3]))
        signal += np.sum(halves[2] * halves[3])
    return float(error / signal)


def two_samples(x: np.ndarray, y: np.ndarray) -> Both:
    return np.concatenate([x, y]), np.repeat([1, 0], [len(x), len(y)])


def neighbours(c: Condition) -> float:
    x, labels = two_samples(c.predicted_ND, c.true_MD)
    model = KNeighborsClassifier(n_neighbors=1)
    return float(cross_val_score(model, x, labels, cv=LeaveOneOut()).mean())


def classifier(c: Condition) -> float:
    x, labels = two_samples(c.predicted_NG, c.true_MG)
    model = HistGradientBoostingClassifier(
        max_iter=60, early_stopping=False, random_state=c.seed, max_bins=64
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=c.seed)
    return float(cross_val_score(model, x, labels, cv=folds, scoring="roc_auc").mean())


def pearson(c: Condition, genes: np.ndarray | slice = slice(None)) -> float:
    return float(stats.pearsonr(*shifts(c, genes)).statistic)


def cosine(c: Condition, genes: np.ndarray | slice = slice(None)) -> float:
    u, v = shifts(c, genes)
    return float(cosine_similarity([u], [v])[0, 0])


def squared_error(c: Condition) -> float:
    u, v = shifts(c)
    noise = float(np.mean(stats.sem(c.true_MG.astype(np.float64), axis=0) ** 2))
    effect = mean_squared_error(v, np.zeros_like(v)) - noise
    return float((mean_squared_error(v, u) - noise) / effect)


#: By the name of the measure. A measure without a reference fails a test.
REFERENCES: dict[str, Callable[[Condition], float]] = {
    "pearson": pearson,
    "pearson_top20": lambda c: pearson(c, top(c)),
    "cosine": cosine,
    "nmse": squared_error,
    "energy": energy,
    "mmd": mmd,
    "w2_sliced": sliced,
    "w2": assignment,
    "de_overlap": overlap,
    "de_direction": direction,
    "lfc_error": fold_change_error,
    "variance_ratio": spread,
    "zero_fraction_error": zeros,
    "correlation_error": correlations,
    "nn_accuracy": neighbours,
    "classifier_auc": classifier,
}


@pytest.fixture(scope="module")
def conditions(papalexi: Any, norman: Any) -> list[Condition]:
    """A strong knock-out and a combination, half of the measured cells as a prediction."""
    found = []
    for name, perturbation, context in CONDITIONS:
        halves = {"papalexi": papalexi, "norman": norman}[name]
        task = Task.prepare(halves.truth, halves.control)
        predicted, key = task.read(halves.replicate), (perturbation, context)
        control = task.control.by_context()[context]
        found.append(
            Condition(
                predicted.dense(predicted.conditions()[key]),
                task.truth.dense(task.truth.conditions()[key]),
                task.control.dense(control),
                task.components,
            )
        )
    return found


def test_every_measure_has_a_reference() -> None:
    assert {*REFERENCES, *OF_PANELS} == set(METRICS)


@pytest.mark.parametrize(
    ("name", "which"),
    # Fifty cells of Norman are too few for correlations.
    [(n, i) for n in REFERENCES for i in (0, 1) if (n, i) != ("correlation_error", 1)],
)
def test_values_are_those_of_third_parties(
    name: str, which: int, conditions: list[Condition]
) -> None:
    condition = conditions[which]
    value = FUNCTIONS[name](condition)
    assert np.isfinite(value)
    assert value == pytest.approx(REFERENCES[name](condition), abs=EXACT)


def test_every_gene_s_test_is_scipy_s(conditions: list[Condition]) -> None:
    for condition in conditions:
        found = differential_expression(condition.true_MG, condition.control_KG)
        change_G, q_G = wilcoxon(condition.true_MG, condition.control_KG)
        np.testing.assert_allclose(found.q_value, q_G, atol=EXACT)
        np.testing.assert_allclose(found.log2_fold_change, change_G, atol=EXACT)
