"""Fit the shape of errors to predicted and measured log fold changes of training conditions.

The parameters of :class:`celldit.calibration.effects.shape.ErrorShape` maximise, by expectation
maximisation, the likelihood of what was measured in training conditions that were predicted without
themselves: the density of the module, widened by the sampling variance of the measurement. Genes of
a condition err together, so a condition counts as at most :data:`GENES` of them. Priors hold the
shape at the normal one about the prediction where data say little: for the odds that a gene
responds, and for the mixture of scales.

A kind of extrapolation borrows from the others as for the widths
(:mod:`celldit.calibration.effects.intervals`).

By what predictions of seen conditions differ from measurements that they follow, errors look small
and every gene looks as predicted. So which of these respond is told by the measurements alone:
those whose log fold change is better explained by a mixture of scales about zero, and the noise,
than by the narrow part (:func:`fit_seen_shape`). Their errors are normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from celldit.calibration.effects.calibration import EffectCalibration, shown
from celldit.calibration.effects.intervals import BORROWED, MIN_RESPONDING, Compared
from celldit.calibration.effects.shape import SCALES, ErrorShape

#: Independent genes that a condition counts as, at most.
GENES = 200
#: Most and least deviation of genes that do not respond, in log fold changes.
NULL_SD = (0.01, 0.15)
#: Share of all weight that holds the mixture of scales.
TIE = 0.02
#: Standard deviations of log fold changes of responding genes, of which there is a mixture.
EFFECTS = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
ROUNDS = 80


class _Prior(NamedTuple):
    """Where a and b are held, how tightly, the most that b is, and what the mixture is held to."""

    mean: np.ndarray
    precision: np.ndarray
    most_slope: float
    tied_K: np.ndarray


OF_ERRORS = _Prior(
    np.array([-1.0, 1.0]), np.array([0.04, 1.0]), 3.0, np.array([0, 0, 0.2, 0.6, 0.2, 0])
)
# Where measurements hardly tell, what is predicted at three standard deviations responds.
OF_SEEN = _Prior(
    np.array([-6.0, 4.0]), np.full(2, 4.0), 15.0, np.full(len(EFFECTS), 1 / len(EFFECTS))
)


def fit_shape(
    calibration: EffectCalibration,
    own: Sequence[Compared],
    others: Sequence[Sequence[Compared]] = (),
) -> ErrorShape:
    """The shape of errors for comparisons of one kind; normal where there are too few.

    Parameters
    ----------
    calibration
        Reads predictions and their standard deviations, each comparison by its kind.
    own, others
        Of the kind, and of every other kind, from which it borrows.
    """
    if not own or len(own) * len(own[0].noise_G) < MIN_RESPONDING:
        return ErrorShape()
    n_borrowed = sum(map(len, others))
    borrowed = min(1.0, BORROWED / max(n_borrowed, 1))
    weighted = [(one, 1.0) for one in own] + [(one, borrowed) for kind in others for one in kind]
    rows = [_read(calibration, one, weight) for one, weight in weighted]
    mean_R, sd_R, *measured = (np.concatenate(column) for column in zip(*rows, strict=True))
    own_RK = _density(
        (measured[0] - mean_R)[:, None], (sd_R[:, None] * SCALES) ** 2 + measured[1][:, None]
    )
    return _most_likely(mean_R / sd_R, own_RK, OF_ERRORS, *measured)


def fit_seen_shape(calibration: EffectCalibration, own: Sequence[Compared]) -> ErrorShape:
    """The shape of errors of seen conditions; normal where there are too few.

    Parameters
    ----------
    calibration
        Reads predictions and their standard deviations.
    own
        Seen conditions.
    """
    if len(own) * sum(len(one.noise_G) for one in own[:1]) < MIN_RESPONDING:
        return ErrorShape()
    rows = []
    for one in own:
        mean_G, sd_G, measured_G, _, weight_G = _read(calibration, one, 1.0)
        ratio_G = mean_G / np.sqrt(shown(sd_G**2, one.noise_G))
        rows.append((ratio_G, measured_G, one.noise_G + one.control_noise_G, weight_G))
    ratio_R, *measured = (np.concatenate(column) for column in zip(*rows, strict=True))
    own_RK = _density(measured[0][:, None], EFFECTS**2 + measured[1][:, None])
    return _most_likely(ratio_R, own_RK, OF_SEEN, *measured).normal


def _read(calibration: EffectCalibration, one: Compared, weight: float) -> tuple[np.ndarray, ...]:
    """Prediction, its deviation, measurement, its noise, and the weight of each gene."""
    mean_G = calibration.fold_change(one.calibrated_G, one.decoded_G, one.kind)
    sd_G = calibration.scale(np.sqrt(one.prior_variance_G), mean_G, one.kind)
    each = weight * min(1.0, GENES / len(mean_G))
    return mean_G, sd_G, one.measured_G, one.beside_G.clip(0), np.full(len(mean_G), each)


def _most_likely(
    ratio_R: np.ndarray,
    own_RK: np.ndarray,
    prior: _Prior,
    measured_R: np.ndarray,
    noise_R: np.ndarray,
    w_R: np.ndarray,
) -> ErrorShape:
    """By expectation maximisation, from m / s and the densities of genes that respond."""
    design_R2 = np.stack([np.ones_like(ratio_R), np.log1p(ratio_R**2)], axis=-1)
    odds_2, null_variance = prior.mean, 0.03**2
    shares_K = np.full(len(prior.tied_K), 1 / len(prior.tied_K))
    for _ in range(ROUNDS):
        prior_R = expit(design_R2 @ odds_2)
        own_R = own_RK @ shares_K
        null_R = _density(measured_R, null_variance + noise_R)
        responds_R = prior_R * own_R / (prior_R * own_R + (1 - prior_R) * null_R)
        shares_K = (w_R * responds_R / own_R) @ own_RK * shares_K + TIE * w_R.sum() * prior.tied_K
        shares_K = shares_K / shares_K.sum()
        null_variance = _null_variance(null_variance, measured_R, noise_R, w_R * (1 - responds_R))
        odds_2 = _logistic(odds_2, design_R2, responds_R, w_R, prior)
    return ErrorShape(
        float(odds_2[0]), float(odds_2[1]), float(np.sqrt(null_variance)), tuple(shares_K.tolist())
    )


def _null_variance(
    variance: float, measured_R: np.ndarray, noise_R: np.ndarray, weight_R: np.ndarray
) -> float:
    """The next τ²: the mean posterior square of what is left when the noise is taken off."""
    kept_R = variance / (variance + noise_R)
    squares_R = kept_R * noise_R + (kept_R * measured_R) ** 2
    mean = float(weight_R @ squares_R / max(weight_R.sum(), 1e-9))
    return float(np.clip(mean, NULL_SD[0] ** 2, NULL_SD[1] ** 2))


def _logistic(
    odds_2: np.ndarray,
    design_R2: np.ndarray,
    responds_R: np.ndarray,
    w_R: np.ndarray,
    prior: _Prior,
) -> np.ndarray:
    """Three Newton steps of a logistic regression with a normal prior."""
    for _ in range(3):
        prior_R = expit(design_R2 @ odds_2)
        slope_2 = design_R2.T @ (w_R * (responds_R - prior_R))
        slope_2 = slope_2 - prior.precision * (odds_2 - prior.mean)
        curvature_R = w_R * prior_R * (1 - prior_R)
        curvature_22 = design_R2.T @ (curvature_R[:, None] * design_R2) + np.diag(prior.precision)
        odds_2 = odds_2 + np.linalg.solve(curvature_22, slope_2)
        odds_2[1] = np.clip(odds_2[1], 0.0, prior.most_slope)
    return odds_2


def _density(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    density: np.ndarray = np.exp(-0.5 * x**2 / variance) / np.sqrt(2 * np.pi * variance)
    # Far out it would be nothing, and shares of nothing are none.
    return density + 1e-300
