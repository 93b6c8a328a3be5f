"""The six measures of Arc's challenge of 2026, from profiles and tests.

After the definitions of Arc's package cell-eval2 (https://github.com/ArcInstitute/cell-eval2,
preset ``vcc2026``); nothing of its code is used, and a test holds the two to 1e-6 of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from celldit.evaluation.challenge.panel import CountGroups
from celldit.evaluation.challenge.rank_tests import ControlRanks, rank_tests
from celldit.evaluation.metrics.differential import DifferentialExpression
from celldit.evaluation.metrics.shift import discrimination_scores

#: Names of the measures, and what cell-eval2 calls them.
MEASURES: dict[str, str] = {
    "pds": "pds_cosine",
    "squared_error": "expr_mse_unbiased_capped_norm",
    "direction": "de_wilcoxon_direction_fidelity_yield_raw",
    "reach": "de_wilcoxon_direction_reach_raw",
    "jaccard": "de_wilcoxon_sig_jaccard",
    "fold_change_error": "de_wilcoxon_lfc_nmae",
}

#: Share of right signs down to which a ranking counts as pure.
PURITY = 0.9
#: Fewer called genes say nothing about the size of fold changes.
LEAST_GENES = 10
#: The counts of a group are scaled to this sum before the logarithm.
TARGET_SUM = 50_000.0
# Dense rows of the jackknife that are held at a time.
CHUNK = 128


@dataclass(frozen=True, eq=False)
class Profiles:
    """Profiles of P groups.

    `means` are log(1 + share of the group's counts x 50,000), shape (P, G); `noise` the squared
    error that the choice of cells puts into each profile, summed over genes, shape (P,): the
    jackknife over cells.
    """

    means: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, groups: CountGroups) -> Profiles:
        """Measure groups of cells, their noise by the jackknife (Efron & Stein 1981)."""
        sums_PG = groups.sums()
        totals_P = sums_PG.sum(axis=1, keepdims=True)
        scale_P = np.divide(TARGET_SUM, totals_P, out=np.zeros_like(totals_P), where=totals_P > 0)
        means_PG = np.log1p(sums_PG * scale_P)
        noise_P = np.zeros(len(groups.labels))
        for p, rows in enumerate(groups.rows()):
            if len(rows) > 1 and totals_P[p, 0] > 0:
                noise_P[p] = _jackknife(groups, rows, sums_PG[p], means_PG[p])
        return cls(means_PG, noise_P)


def _jackknife(
    groups: CountGroups, rows: np.ndarray, sums_G: np.ndarray, mean_G: np.ndarray
) -> float:
    """Variance of a profile over leaving out one cell, summed over genes."""
    n, total = len(rows), float(sums_G.sum())
    first_G, second_G = np.zeros_like(sums_G), np.zeros_like(sums_G)
    for start in range(0, n, CHUNK):
        counts_CG = groups.counts[rows[start : start + CHUNK]].toarray().astype(np.float64)
        rest_C = total - counts_CG.sum(axis=1)
        without_CG = np.subtract(sums_G, counts_CG, out=counts_CG)
        without_CG *= (TARGET_SUM / np.where(rest_C > 0, rest_C, 1.0))[:, None]
        np.log1p(without_CG, out=without_CG)
        without_CG -= mean_G
        without_CG[rest_C <= 0] = -mean_G
        first_G += without_CG.sum(axis=0)
        second_G += np.einsum("cg,cg->g", without_CG, without_CG)
    return max((n - 1) / n * float((second_G - first_G**2 / n).sum()), 0.0)


@dataclass(frozen=True, eq=False)
class Reference:
    """Control cells as all measures need them."""

    ranks: ControlRanks
    profile: Profiles

    @classmethod
    def of(cls, counts_KG: CountGroups) -> Reference:
        """Measure control cells, given as one group."""
        return cls(ControlRanks.of(counts_KG.counts), Profiles.of(counts_KG))


@dataclass(frozen=True, eq=False)
class Side:
    """P predicted or measured groups of cells, measured against control cells."""

    labels: tuple[str, ...]
    profiles: Profiles
    tests: DifferentialExpression
    control: Reference

    @classmethod
    def of(cls, groups: CountGroups, control: Reference) -> Side:
        """Measure groups of cells."""
        return cls(groups.labels, Profiles.of(groups), rank_tests(groups, control.ranks), control)


def measure_panel(
    predicted: Side, real: Side, targets: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Compute the measures of P perturbations, whose effects start at the controls of each side.

    Of each perturbation the genes it acts on, at the positions `targets`, do not count; from the
    distances of ``pds`` the targets of the whole panel are left out. An array of shape (P,) comes
    back for each of :data:`MEASURES`, NaN where one is not defined; ``squared_error`` stands beside
    ``squared_effect``, what it is divided by.
    """
    own_PG = own_targets(real.labels, targets, real.profiles.means.shape[1])
    error_P, effect_P = _squared(predicted.profiles, real.profiles, real.control.profile, own_PG)
    direction_P, reach_P, jaccard_P = _called(predicted.tests, real.tests, own_PG)
    return {
        "pds": _discrimination(predicted, real, np.asarray(own_PG.any(axis=0))),
        "squared_error": error_P,
        "squared_effect": effect_P,
        "direction": direction_P,
        "reach": reach_P,
        "jaccard": jaccard_P,
        "fold_change_error": fold_change_error(
            predicted.tests.log2_fold_change, real.tests.log2_fold_change, real.tests, own_PG
        ),
    }


def own_targets(
    labels: Sequence[str], targets: Mapping[str, np.ndarray], n_genes: int
) -> np.ndarray:
    """Whether a perturbation acts on a gene, shape (P, G)."""
    own_PG = np.zeros((len(labels), n_genes), dtype=bool)
    for p, label in enumerate(labels):
        own_PG[p, targets.get(label, ())] = True
    return own_PG


def aggregate(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """One number for each measure: the mean over perturbations where it is defined.

    ``squared_error`` is the sum of errors over the sum of squared effects.
    """
    n = len(values["squared_error"])
    return {name: float(value[0]) for name, value in weighted(values, np.ones((1, n))).items()}


def weighted(values: Mapping[str, np.ndarray], weight_RP: np.ndarray) -> dict[str, np.ndarray]:
    """The same with weights of the perturbations, R sets of them; shape (R,) each."""
    found = {name: _mean(values[name], weight_RP) for name in MEASURES if name != "squared_error"}
    error_P, effect_P = values["squared_error"], values["squared_effect"]
    both_P = np.isfinite(error_P) & np.isfinite(effect_P)
    size_R = weight_RP @ np.where(both_P, effect_P, 0.0)
    error_R = weight_RP @ np.where(both_P, error_P, 0.0)
    # Sums that are not above 0 mean that no effect can be told from noise.
    found["squared_error"] = np.divide(
        error_R, size_R, out=np.full(len(size_R), np.nan), where=size_R > 0
    )
    return {name: found[name] for name in MEASURES}


def _mean(values_P: np.ndarray, weight_RP: np.ndarray) -> np.ndarray:
    known_P = np.isfinite(values_P)
    n_R = weight_RP @ known_P
    total_R = weight_RP @ np.where(known_P, values_P, 0.0)
    return np.divide(total_R, n_R, out=np.full(len(n_R), np.nan), where=n_R > 0)


def _discrimination(predicted: Side, real: Side, left_out_G: np.ndarray) -> np.ndarray:
    """Share of the other perturbations that lie further than the own one, by cosine."""
    shifts = (side.profiles.means - side.control.profile.means for side in (predicted, real))
    return 0.5 + 0.5 * discrimination_scores(*shifts, left_out=np.flatnonzero(left_out_G))


def _squared(
    predicted: Profiles, real: Profiles, control: Profiles, own_PG: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared error and squared effect per gene, sampling noise subtracted from both.

    The noise that a prediction may subtract is at most that of the measurement, and over the panel
    at most the spread of its own profiles: cells whose scatter cancels in their sum earn nothing.
    """
    n_P = (~own_PG).sum(axis=1).astype(np.float64)
    weight_P = np.divide(1.0, n_P, out=np.zeros_like(n_P), where=n_P > 0)
    noise_P = np.minimum(predicted.noise, real.noise)
    claimed = float(noise_P @ weight_P)
    if claimed > 0:
        noise_P = noise_P * min(_spread(predicted.means, own_PG, weight_P) / claimed, 1.0)
    error_P = _distance(predicted.means, real.means, own_PG) - noise_P - real.noise
    effect_P = _distance(real.means, control.means, own_PG) - real.noise - control.noise
    empty_P = np.where(n_P > 0, 1.0, np.nan)
    return error_P * weight_P * empty_P, effect_P * weight_P * empty_P


def _distance(x_PG: np.ndarray, y_PG: np.ndarray, own_PG: np.ndarray) -> np.ndarray:
    gap_PG = np.where(own_PG, 0.0, x_PG - y_PG)
    return np.einsum("pg,pg->p", gap_PG, gap_PG)


def _spread(means_PG: np.ndarray, own_PG: np.ndarray, weight_P: np.ndarray) -> float:
    """Weighted sum of squares between the profiles of a panel."""
    kept_PG = ~own_PG
    weight_PG = weight_P[:, None] * kept_PG
    total_G = weight_PG.sum(axis=0)
    away_PG = means_PG - means_PG.mean(axis=0)
    first_G = (weight_PG * away_PG).sum(axis=0)
    second_G = (weight_PG * away_PG**2).sum(axis=0)
    known_G = (kept_PG.sum(axis=0) >= 2) & (total_G > 0)
    squares = second_G[known_G] - first_G[known_G] ** 2 / total_G[known_G]
    return float(np.maximum(squares, 0.0).sum())


def _called(
    predicted: DifferentialExpression, real: DifferentialExpression, own_PG: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right signs among calls, depth to which signs stay right, and overlap of calls."""
    truly_PG, found_PG = real.called & ~own_PG, predicted.called & ~own_PG
    n_true_P = truly_PG.sum(axis=1).astype(np.float64)
    both_P = (truly_PG & found_PG).sum(axis=1)
    either_P = (truly_PG | found_PG).sum(axis=1)
    jaccard_P = np.divide(both_P, either_P, out=np.ones(len(both_P)), where=either_P > 0)
    known_PG = (
        np.isfinite(real.log2_fold_change)
        & (real.log2_fold_change != 0)
        & np.isfinite(predicted.q_value)
    )
    right_PG = known_PG & (np.sign(predicted.log2_fold_change) == np.sign(real.log2_fold_change))
    scored_PG = found_PG & known_PG
    n_scored_P = scored_PG.sum(axis=1).astype(np.float64)
    most_P = np.maximum(n_scored_P, n_true_P)
    n_right_P = (scored_PG & right_PG).sum(axis=1).astype(np.float64)
    direction_P = np.divide(n_right_P, most_P, out=np.full(len(most_P), np.nan), where=most_P > 0)
    reach_P = np.array(
        [
            _reach(predicted, p, np.flatnonzero(truly_PG[p] & known_PG[p]), right_PG[p])
            for p in range(len(own_PG))
        ]
    )
    reach_P = np.divide(reach_P, n_true_P, out=np.full(len(reach_P), np.nan), where=n_true_P > 0)
    return direction_P, reach_P, jaccard_P


def _reach(
    predicted: DifferentialExpression, p: int, genes: np.ndarray, right_G: np.ndarray
) -> float:
    """Deepest rank down to which enough of the predicted signs are right."""
    if genes.size == 0:
        return 0.0
    order = np.lexsort(
        (
            -np.abs(predicted.log2_fold_change[p, genes]),
            predicted.p_value[p, genes],
            predicted.q_value[p, genes],
        )
    )
    depth = np.arange(1, genes.size + 1)
    pure = np.cumsum(right_G[genes[order]]) / depth >= PURITY
    return float(depth[pure].max()) if pure.any() else 0.0


def fold_change_error(
    predicted_PG: np.ndarray, other_PG: np.ndarray, real: DifferentialExpression, own_PG: np.ndarray
) -> np.ndarray:
    """Mean error of fold changes over the mean size of the measured ones, among called genes.

    The error is the difference of two log2 fold changes, in which NaN counts as no change; `real`
    says which genes count and how large their changes are, and `own_PG` which do not. Shape (P,);
    NaN with fewer than ten called genes.
    """
    gate_PG = real.called & ~own_PG & np.isfinite(real.log2_fold_change)
    gap_PG = np.abs(np.nan_to_num(predicted_PG) - np.nan_to_num(other_PG))
    error_P = np.where(gate_PG, gap_PG, 0.0).sum(axis=1)
    size_P = np.where(gate_PG, np.abs(real.log2_fold_change), 0.0).sum(axis=1)
    enough_P = (gate_PG.sum(axis=1) >= LEAST_GENES) & (size_P > 0)
    return np.divide(error_P, size_P, out=np.full(len(size_P), np.nan), where=enough_P)
