"""How far predicted log fold changes are off, learned from predicted and measured ones.

The variance of :class:`celldit.calibration.effects.EffectCalibration` is a sum of five terms: the
prior's variance, the square of the prediction, a constant, a gene's own mean squared error over
training conditions (drawn towards that of all genes: most genes never respond to anything, and a
screen shows which; for a condition it is taken from the others when the multiples are chosen), and
the standard deviation of the prior times that of the gene's measurement. The last, since a gene
that is measured badly is predicted worse than the prior has it, however little it is expected to
move: of all that is known of a responding gene beforehand, noise tells most of its error.

The multiples, at least 0, maximise the Gaussian likelihood of the errors, half of it that of all
genes and half that of those that respond. All genes alone would make intervals in which few
responding ones lie, since it is not known beforehand which these are; responding ones alone (as the
first release had it) make every gene as uncertain as they are. Then variances are scaled until 90%
intervals hold 93% of the responding genes (the split-conformal idea of Vovk et al. 2005, with
leave-one-out predictions in place of a split), since a new condition is less like the rest than
those left out one by one are; and 95% of those of conditions seen in training, which have shaped
all that was learned from them and not only the effect prior. A condition counts by the square root
of how many of its genes respond, between each condition and each gene the same: one odd gene of a
condition where nothing else responds does not decide, nor does the strongest condition. Where fewer
than thirty respond they count for so much less, and all genes for more.

A kind of extrapolation with few trials borrows from the others, which count as two conditions of
its own: where it has six a quarter of what is fitted on is theirs, where it has forty next to none.

A condition that training has seen has shaped its prediction. Where that follows a share w of the
noise σ² of the measurement,

    E (measured - predicted)² = error² + (1 - 2 w) σ² + (1 - f)² k²

(Mallows 1973; Efron 2004), and not error² + σ². The share of a gene is what its left-out
predictions move towards the measurement when the condition joins. To subtract the noise as a whole
left next to nothing of the error, and a large scale to make up for it. The last term, k², is the
noise of the controls, from which all conditions of a stratum are counted: f is how far predictions
follow what these conditions have in common. What they follow is error, and stands in the variance
of a seen condition by itself (:mod:`celldit.calibration.effects.calibration`); the rest must not be
among the errors, since with few controls it is larger than any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize, nnls

from celldit.calibration.effects.calibration import EffectCalibration
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.strata import StratumKey

MIN_RESPONDING = 30
Z_90 = 1.645
RESPONDS = 4.0
# Share of responding training genes that 90% intervals hold: of conditions left out, of seen ones.
HELD, HELD_SEEN = 0.93, 0.95
# As many conditions of its own the other kinds count as, all together.
BORROWED = 2.0
# As many conditions with the mean squared error of all genes a gene's own is averaged with, and
# with the share of noise that all genes follow.
PRIOR_CONDITIONS = 3.0
# Where errors are no larger than noise, none is seen; a gene's is still not known to be nothing.
LEAST_SD = 0.05
LEAST_ERROR = 0.2
LEAST_LOG, MOST_LOG = -12.0, 3.0
# Precision with which log b is held at 0, where one gene that errs counts as all together: where
# nothing was predicted, nothing tells how far predictions are off.
TIE = 0.001
# Column of what is in proportion to the prediction.
RELATIVE = 1


@dataclass(frozen=True, eq=False)
class Compared:
    """Predicted and measured log fold changes of one training condition, all of shape (G,).

    Attributes
    ----------
    kind
        How far the prediction had to reach.
    calibrated_G, decoded_G, measured_G
        Predicted by rates of either sort, and measured.
    prior_variance_G
        Of the effect prior.
    noise_G
        Sampling variance of the perturbed cells.
    strength_G
        Squared measurement over its sampling variance.
    stratum
        Whose controls the measurement is counted from.
    control_noise_G
        Sampling variance of these.
    followed_G
        Share of the noise of perturbed cells that the prediction follows; none where the condition
        was left out.
    control_followed
        Share of the controls' noise that it follows; all of it where that is no matter.
    """

    kind: Extrapolation
    calibrated_G: np.ndarray
    decoded_G: np.ndarray
    measured_G: np.ndarray
    prior_variance_G: np.ndarray
    noise_G: np.ndarray
    strength_G: np.ndarray
    stratum: StratumKey = ("", None)
    control_noise_G: np.ndarray | float = 0.0
    followed_G: np.ndarray | float = 0.0
    control_followed: float = 1.0

    @property
    def beside_G(self) -> np.ndarray:
        """What squared errors hold beside the error of the prediction."""
        of_controls_G = (1 - self.control_followed) ** 2 * self.control_noise_G
        beside_G: np.ndarray = self.noise_G * (1 - 2 * self.followed_G) + of_controls_G
        return beside_G


class _Trials:
    """Comparisons of C conditions of one kind, stacked."""

    def __init__(self, compared: Sequence[Compared]) -> None:
        self.calibrated, self.decoded = reading(compared)
        self.predicted_CG = _predicted(compared, self.calibrated, self.decoded)
        measured_CG = np.stack([one.measured_G for one in compared])
        self.noise_CG = np.stack([one.noise_G for one in compared])
        self.squared_CG = (measured_CG - self.predicted_CG) ** 2
        # Below 0 it is what they lack of the error.
        self.beside_CG = np.stack([one.beside_G for one in compared])
        self.prior_CG = np.stack([one.prior_variance_G for one in compared])
        self.strength_CG = np.stack([one.strength_G for one in compared])


def fit_widths(
    own: Sequence[Compared], others: Sequence[Sequence[Compared]] = (), held: float = HELD
) -> EffectCalibration:
    """Coefficients for comparisons of one kind, or none where there are too few.

    Parameters
    ----------
    own
        Of the kind.
    others
        Of every other kind, from which it borrows.
    held
        Share of responding genes that 90% intervals are to hold.
    """
    if not own or len(own) * len(own[0].noise_G) < MIN_RESPONDING:
        return EffectCalibration()
    own_trials = _Trials(own)
    trials = [own_trials, *map(_Trials, filter(None, others))]
    n_borrowed = sum(map(len, others))
    borrowed = np.full(n_borrowed, min(1.0, BORROWED / max(n_borrowed, 1)))
    weight_C1 = np.concatenate([np.ones(len(own)), borrowed])[:, None]
    predicted_CG, squared_CG, beside_CG, prior_CG, strength_CG = (
        np.concatenate([getattr(each, name) for each in trials])
        for name in ("predicted_CG", "squared_CG", "beside_CG", "prior_CG", "strength_CG")
    )
    responds_CG = strength_CG >= RESPONDS**2
    # Where few respond, they count for less: the next in line are there by their noise.
    trusted = min(1.0, responds_CG.sum() / MIN_RESPONDING)
    whole_CG, noise_CG = squared_CG + (-beside_CG).clip(0), beside_CG.clip(0)
    own_CG, own_G = error_of_genes(whole_CG, noise_CG, weight_C1)
    noise_sd_G = np.sqrt(np.median(own_trials.noise_CG, axis=0))
    constant_CG, rough_CG = np.ones_like(prior_CG), np.sqrt(prior_CG) * noise_sd_G
    design_CG5 = np.stack([prior_CG, predicted_CG**2, constant_CG, own_CG, rough_CG], axis=-1)
    share_CG = responds_CG / np.sqrt(responds_CG.sum(axis=1, keepdims=True).clip(1))
    # Where more genes respond in the other kinds, these do not count for more.
    for rows in (slice(len(own)), slice(len(own), None)):
        in_all = (weight_C1[rows, 0] * responds_CG[rows].any(axis=1)).sum()
        share_CG[rows] *= in_all / max(share_CG[rows].sum(), 1e-12)
    share_CG *= trusted / max(share_CG.sum(), 1e-12)
    all_CG = weight_C1 * constant_CG / (weight_C1.sum() * prior_CG.shape[1])
    coefficients = _most_likely(
        design_CG5.reshape(-1, 5),
        whole_CG.ravel(),
        noise_CG.ravel(),
        ((share_CG + (2 - trusted) * all_CG) / 2).ravel(),
    )
    # Scale until 90% intervals, with the measurement's own noise, hold the share wanted.
    expected_R = design_CG5[responds_CG] @ coefficients
    excess_R = squared_CG[responds_CG] / Z_90**2 - beside_CG[responds_CG]
    scale = 1.0
    if trusted:
        found = weighted_quantile(excess_R.clip(0) / expected_R, share_CG[responds_CG], held)
        scale = float(found**trusted)
    a, b, c, d, e = (coefficients * scale).tolist()
    return EffectCalibration(
        own_trials.calibrated,
        own_trials.decoded,
        # Never surer than the effect prior is of its own shift.
        max(a, 1.0),
        b,
        np.maximum(c + d * own_G, LEAST_SD**2).astype(np.float32),
        max(int(responds_CG.sum()), 1),
        rough=(e * noise_sd_G).astype(np.float32),
    )


def with_followed(seen: Sequence[Compared], left_out: Sequence[Compared]) -> list[Compared]:
    """Comparisons of seen conditions, with the share of noise that predictions follow.

    Parameters
    ----------
    seen, left_out
        The same conditions, predicted with their own cells and without.
    """
    if not seen:
        return []
    with_CG, without_CG = (_predicted(each, *reading(seen)) for each in (seen, left_out))
    noise_CG = np.stack([one.noise_G for one in seen])
    missed_CG = np.stack([one.measured_G for one in seen]) - without_CG
    weight_CG = 1 / (noise_CG + np.median(noise_CG))
    moved_CG = weight_CG * missed_CG * (with_CG - without_CG)
    whole_CG = weight_CG * missed_CG**2 + 1e-12
    prior = PRIOR_CONDITIONS * whole_CG.mean()
    followed_G = moved_CG.sum(axis=0) + prior * moved_CG.sum() / whole_CG.sum()
    followed_G /= whole_CG.sum(axis=0) + prior
    control_followed = _of_controls_followed(seen, with_CG)
    return [
        replace(one, followed_G=followed_G.clip(0, 1), control_followed=control_followed)
        for one in seen
    ]


def _of_controls_followed(seen: Sequence[Compared], predicted_CG: np.ndarray) -> float:
    """Share of what the conditions of a stratum have in common that predictions follow.

    The noise of the controls is part of that.
    """
    place = {key: i for i, key in enumerate(dict.fromkeys(one.stratum for one in seen))}
    row_C = np.array([place[one.stratum] for one in seen])
    mean_SC = (np.arange(len(place))[:, None] == row_C) / np.bincount(row_C)[:, None]
    measured_SG = mean_SC @ np.stack([one.measured_G for one in seen])
    noise_SG = mean_SC @ np.stack([one.noise_G + one.control_noise_G for one in seen])
    weight_SG = 1 / (noise_SG + np.median(noise_SG))
    both = float((weight_SG * measured_SG * (mean_SC @ predicted_CG)).sum())
    return float(np.clip(both / ((weight_SG * measured_SG**2).sum() + 1e-12), 0, 1))


def _predicted(compared: Sequence[Compared], calibrated: float, decoded: float) -> np.ndarray:
    return np.stack([calibrated * one.calibrated_G + decoded * one.decoded_G for one in compared])


def reading(compared: Sequence[Compared]) -> tuple[float, float]:
    """s and t, with a tie to calibrated rates as they are, as strong as one more condition."""
    total_33 = np.zeros((3, 3))
    for one in compared:
        each_3G = np.stack([one.calibrated_G, one.decoded_G, one.measured_G])
        # A gene that is measured without error is still not predicted so.
        weight_G = 1 / (one.noise_G + LEAST_ERROR**2)
        total_33 += (each_3G * weight_G) @ each_3G.T
    tie = np.trace(total_33[:2, :2]) / (2 * len(compared)) + 1e-12
    gram_22 = total_33[:2, :2] + tie * np.eye(2)
    root_22 = np.linalg.cholesky(gram_22)
    found, _ = nnls(root_22.T, np.linalg.solve(root_22, total_33[:2, 2] + tie * np.array([1, 0])))
    # What decoding loses is for mean calibration to make up for, and it does.
    found /= max(1.0, found.sum())
    return float(found[0]), float(found[1])


def error_of_genes(
    squared_CG: np.ndarray, noise_CG: np.ndarray, weight_C1: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of each gene beyond noise: over all other conditions, and over all.

    Conditions that are measured better count more, one that is far off no more than the hundredth
    worst, and every gene's is averaged with that of all genes.
    """
    most = np.quantile(squared_CG, 0.99)
    excess_CG = (squared_CG - noise_CG).clip(-most, most)
    # What holds no noise at all is not known without end.
    weight_CG = weight_C1 / (noise_CG.clip(LEAST_SD**2) + np.median(noise_CG))
    typical = max(float(np.average(excess_CG, weights=weight_CG)), 1e-6)
    prior_weight = PRIOR_CONDITIONS * weight_CG.sum() / np.sum(weight_C1 * np.ones_like(noise_CG))
    prior = prior_weight * typical
    sum_CG = weight_CG * excess_CG
    sum_G, total_G = sum_CG.sum(axis=0), weight_CG.sum(axis=0)
    # A sum below zero says that noise was overestimated, not that the gene is certain.
    others_CG = np.maximum(sum_G - sum_CG + prior, 0.01 * prior)
    others_CG /= total_G - weight_CG + prior_weight
    all_G = np.maximum(sum_G + prior, 0.01 * prior) / (total_G + prior_weight)
    return others_CG, all_G


def _most_likely(
    design_RK: np.ndarray, squared_R: np.ndarray, noise_R: np.ndarray, weight_R: np.ndarray
) -> np.ndarray:
    """Multiples, positive, with which squared errors are most likely of a Gaussian."""
    # In units of each column's mean the start and the bounds suit any data.
    unit_K = np.maximum(design_RK.mean(axis=0), 1e-12)
    unit_K[RELATIVE] = max(unit_K[RELATIVE], squared_R.mean())
    unit_RK = design_RK / unit_K * squared_R.mean()
    to_b = np.log(squared_R.mean() / unit_K[RELATIVE])

    def nll(log_K: np.ndarray) -> tuple[float, np.ndarray]:
        variance_R = unit_RK @ np.exp(log_K) + noise_R
        relative_R = squared_R / variance_R
        slope_R = weight_R * (1 - relative_R) / variance_R
        value = float(weight_R @ (np.log(variance_R) + relative_R))
        slope_K = (slope_R @ unit_RK) * np.exp(log_K)
        log_b = log_K[RELATIVE] + to_b
        slope_K[RELATIVE] += 2 * TIE * log_b
        return value + TIE * log_b**2, slope_K

    bounds = [(LEAST_LOG, MOST_LOG)] * design_RK.shape[1]
    found = [
        minimize(nll, np.full(len(unit_K), at), jac=True, method="L-BFGS-B", bounds=bounds)
        for at in (-1.0, -4.0)
    ]
    best = min(found, key=lambda one: float(one.fun))
    return np.asarray(np.exp(best.x) * squared_R.mean() / unit_K)


def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The smallest value such that those up to it have at least a share q of the weight."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, q)), len(values) - 1)])
