"""Two perturbations together against both alone, from measured cells.

With a, b and ab the log fold changes (natural logarithm of mean rates) of both single perturbations
and of the pair, all against the same controls, the **deviation** of a gene from the sum is

    ab - a - b = log (pair · control) / (first · second),

and its sampling variance the sum of those of the four log means. Whole pairs are described as in
the study of Norman et al. (2019, Science 365:786) by the fit ab ≈ c₁ a + c₂ b over genes, and by
ab ≈ t (a + b); all are 1 where effects add up. What is measured of a and b holds noise, and least
squares would make them too small. So every product of two effects takes them from different halves
of the cells, controls included, whose noise is independent, and is averaged over splits; each gene
counts by one over its variance, and the more it responds to any of the perturbations the more.
Where a single perturbation does next to nothing its coefficient is drawn to 1, which is what
nothing says. Standard deviations are those of a jackknife that leaves out a tenth of the cells at a
time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from scipy import sparse

from celldit.calibration.rates.fold_change import PSEUDO_RATE
from celldit.calibration.rates.means import MeanRates, mean_rates, measured_fold_change
from celldit.data.cells import COUNTS_PER_CELL, Cells

Group: TypeAlias = tuple[int, int, int, int]
"""Conditions of the controls, the first perturbation, the second, and both."""

#: Folds of the jackknife, and splits of them into halves.
N_FOLDS, N_SPLITS = 10, 20
#: More than so many standard deviations count as a difference: 97% of Student's distribution with
#: the nine degrees of freedom of a jackknife of ten folds.
SURE = 2.5
#: Standard deviation of the total above which nothing is said of a pair.
TOO_UNSURE = 0.35
#: A pair of which the singles explain less is something new; and the share of the larger
#: coefficient below which the smaller one counts as masked.
NEW, MASKED = 0.5, 0.5


class Kind(StrEnum):
    """How two effects combine."""

    ADDITIVE = "additive"
    SYNERGY = "synergy"
    BUFFERING = "buffering"
    EPISTASIS = "epistasis"
    NEOMORPHIC = "neomorphic"
    UNCLEAR = "unclear"


@dataclass(frozen=True, eq=False)
class PairFit:
    """One pair."""

    effects_3G: np.ndarray  # log fold changes of the first, the second and both
    deviation_G: np.ndarray  # of the pair from the sum
    error_G: np.ndarray  # its standard error
    coefficients: tuple[float, float]  # c₁ and c₂
    sds: tuple[float, float]
    difference_sd: float  # of c₁ - c₂
    total: float  # t: above 1 the pair does more than the sum
    total_sd: float
    fit: float  # share of the pair's squared effect that c₁ a + c₂ b explains, free of noise
    fit_sd: float
    # Beyond noise, of the first and the second: only then can they be masked.
    has_effect: tuple[bool, bool]

    @property
    def kind(self) -> Kind:
        """The kind; see :func:`celldit.tl.interactions`."""
        if self.total_sd > TOO_UNSURE:
            return Kind.UNCLEAR
        if self.fit + SURE * self.fit_sd < NEW:
            return Kind.NEOMORPHIC
        (small, masked), (large, _) = sorted(zip(self.coefficients, self.has_effect, strict=True))
        if masked and large - small > SURE * self.difference_sd and small < MASKED * large:
            return Kind.EPISTASIS
        if abs(self.total - 1) <= SURE * self.total_sd:
            return Kind.ADDITIVE
        return Kind.SYNERGY if self.total > 1 else Kind.BUFFERING


def fit_pairs(
    cells: Cells, condition_N: np.ndarray, pairs: Sequence[Group], rng: np.random.Generator
) -> list[PairFit]:
    """Compare pairs of conditions of N cells with their parts; `rng` deals cells into folds."""
    wanted = np.unique(np.array(pairs))
    rates = mean_rates(cells, condition_N, wanted.tolist())
    sums_CKG, n_CK = _fold_sums(cells, condition_N, wanted, rng)
    halves = [rng.permutation(N_FOLDS) for _ in range(N_SPLITS)]
    responds_G = _responds(rates, pairs)
    found = []
    for pair in pairs:
        of_pair = np.searchsorted(wanted, pair)
        log_4G = np.log([rates[condition].mean_G for condition in pair])
        variance_4G = np.array([rates[condition].log_variance_G for condition in pair])
        total_G = variance_4G.sum(axis=0)
        # A gene that is measured without error still does not follow the fit without one.
        weight_G = responds_G / (total_G + np.median(total_G))
        # Products of an effect that is nothing with itself and with the pair's scatter about 0 with
        # this deviation; a single perturbation that does no more says nothing.
        noise_2G = variance_4G[0] + variance_4G[1:3]
        scatter_2G = noise_2G * (2 * noise_2G + (log_4G[3] - log_4G[0]) ** 2)
        tie_2 = np.sqrt((weight_G**2 * scatter_2G).sum(axis=1))
        given = sums_CKG[of_pair], n_CK[of_pair], weight_G, tie_2
        whole = _coefficients(*given, halves)
        left_out = [
            _coefficients(*given, [half[half != fold] for half in halves])
            for fold in range(N_FOLDS)
        ]
        found.append(_summary(log_4G[1:] - log_4G[0], variance_4G, whole, np.array(left_out)))
    return found


def _fold_sums(
    cells: Cells, condition_N: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Summed counts per 10,000 of each condition and fold, (C, K, G), and cells, (C, K)."""
    own, column = [], []
    for row, condition in enumerate(wanted):
        of_condition = rng.permutation(np.flatnonzero(condition_N == condition))
        own.append(of_condition)
        column.append(row * N_FOLDS + np.arange(len(of_condition)) % N_FOLDS)
    cell_M, group_M = np.concatenate(own), np.concatenate(column)
    shape = len(wanted), N_FOLDS
    chosen = sparse.csr_matrix(
        (COUNTS_PER_CELL / cells.size_factors[cell_M], (group_M, cell_M)),
        shape=(shape[0] * shape[1], cells.n_cells),
    )
    n_CK = np.bincount(group_M, minlength=chosen.shape[0]).reshape(shape)
    return (chosen @ cells.counts).toarray().reshape(*shape, -1), n_CK


def _responds(rates: Mapping[int, MeanRates], pairs: Sequence[Group]) -> np.ndarray:
    """How much each gene responds to any of the perturbations, from 0 to 1, (G,)."""
    excess = {}
    for control, *others in pairs:
        for condition in others:
            change_G, variance_G = measured_fold_change(rates[control], rates[condition])
            excess[condition] = np.maximum(change_G**2 / variance_G - 1, 0)
    mean_G = np.mean(list(excess.values()), axis=0)
    responds_G: np.ndarray = mean_G / (1 + mean_G)
    return responds_G


def _coefficients(
    sums_4KG: np.ndarray,
    n_4K: np.ndarray,
    weight_G: np.ndarray,
    tie_2: np.ndarray,
    splits: Sequence[np.ndarray],
) -> np.ndarray:
    """c₁, c₂, the share of the pair's squared effect that they explain, t, a² and b²; (6,)."""
    moments_33 = np.zeros((3, 3))
    for order in splits:
        first_3G, second_3G = (
            _effects(sums_4KG[:, half], n_4K[:, half])
            for half in (order[: len(order) // 2], order[len(order) // 2 :])
        )
        moments_33 += (first_3G * weight_G) @ second_3G.T / len(splits)
    moments_33 = (moments_33 + moments_33.T) / 2
    values, vectors = np.linalg.eigh(moments_33[:2, :2] + np.diag(tie_2))
    solved_22 = vectors / np.maximum(values, tie_2.min()) @ vectors.T
    c_2 = solved_22 @ (moments_33[:2, 2] + tie_2)
    left = moments_33[2, 2] - 2 * c_2 @ moments_33[:2, 2] + c_2 @ moments_33[:2, :2] @ c_2
    fit = 1 - left / max(moments_33[2, 2], tie_2.min())
    whole = max(moments_33[:2, :2].sum(), tie_2.max())
    return np.array([*c_2, fit, moments_33[:2, 2].sum() / whole, *np.diag(moments_33)[:2]])


def _effects(sums_4KG: np.ndarray, n_4K: np.ndarray) -> np.ndarray:
    mean_4G = sums_4KG.sum(axis=1) / np.maximum(n_4K.sum(axis=1), 1)[:, None]
    log_4G = np.log(mean_4G + PSEUDO_RATE)
    effects_3G: np.ndarray = log_4G[1:] - log_4G[0]
    return effects_3G


def _summary(
    effects_3G: np.ndarray, variance_4G: np.ndarray, whole_6: np.ndarray, folds_K6: np.ndarray
) -> PairFit:
    first, second, fit, total, *squares = whole_6.tolist()
    derived_K7 = np.column_stack([folds_K6, folds_K6[:, 0] - folds_K6[:, 1]])
    sds = np.sqrt((N_FOLDS - 1) * derived_K7.var(axis=0)).tolist()
    return PairFit(
        effects_3G=effects_3G,
        deviation_G=effects_3G[2] - effects_3G[0] - effects_3G[1],
        error_G=np.sqrt(variance_4G.sum(axis=0)),
        coefficients=(first, second),
        sds=(sds[0], sds[1]),
        difference_sd=sds[6],
        total=total,
        total_sd=sds[3],
        fit=fit,
        fit_sd=sds[2],
        has_effect=(squares[0] > SURE * sds[4], squares[1] > SURE * sds[5]),
    )
