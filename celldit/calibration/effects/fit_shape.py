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
and every gene looks as predicted. So which of these respond is told by the measurements alone
(:func:`fit_seen_shape`). Their errors are normal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from celldit.calibration.effects.calibration import EffectCalibration
from celldit.calibration.effects.intervals import BORROWED, MIN_RESPONDING, Compared
from celldit.calibration.effects.shape import EFFECTS, SCALES, ErrorShape, density

#: Independent genes that a condition counts as, at most.
GENES = 200
#: Most and least deviation of genes that do not respond, in log fold changes.
NULL_SD = (0.01, 0.15)
#: Share of all weight that holds the mixture of scales.
TIE = 0.02
#: Where the mixture of scales is held; the prior of a and b, its precision, and the most b is.
TIED = np.array([0, 0, 0.2, 0.6, 0.2, 0])
PRIOR_MEAN, PRIOR_PRECISION, MOST_SLOPE = np.array([-1.0, 1.0]), np.array([0.04, 1.0]), 3.0
#: Share of genes that respond before anything is known, and as many genes this counts as.
RESPONDING, RESPONDING_GENES = 0.25, 50.0
ROUNDS = 80


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
    own_RK = density(
        (measured[0] - mean_R)[:, None], (sd_R[:, None] * SCALES) ** 2 + measured[1][:, None]
    )
    return _most_likely(mean_R / sd_R, own_RK, *measured)


def fit_seen_shape(own: Sequence[Compared]) -> ErrorShape:
    """The shape of errors of seen conditions; normal where there are too few.

    By expectation maximisation from what was measured in them.
    """
    if not own or len(own) * len(own[0].noise_G) < MIN_RESPONDING:
        return ErrorShape()
    measured_R = np.concatenate([one.measured_G for one in own])
    noise_R = np.concatenate([one.noise_G + one.control_noise_G for one in own])
    w_R = np.full(len(measured_R), min(1.0, GENES / len(own[0].noise_G)))
    own_RK = density(measured_R[:, None], EFFECTS**2 + noise_R[:, None])
    responding, null_variance = RESPONDING, 0.03**2
    effects_K = tied_K = np.full(len(EFFECTS), 1 / len(EFFECTS))
    for _ in range(ROUNDS):
        own_R = responding * own_RK @ effects_K
        null_R = (1 - responding) * density(measured_R, null_variance + noise_R)
        responds_R = own_R / (own_R + null_R)
        of_K = (w_R * responds_R / own_R) @ own_RK * responding * effects_K
        effects_K = of_K + TIE * w_R.sum() * tied_K
        effects_K = effects_K / effects_K.sum()
        null_variance = _null_variance(null_variance, measured_R, noise_R, w_R * (1 - responds_R))
        responding = w_R @ responds_R + RESPONDING * RESPONDING_GENES
        responding = float(responding / (w_R.sum() + RESPONDING_GENES))
    return ErrorShape(
        null_sd=float(np.sqrt(null_variance)),
        responding=responding,
        effects=tuple(effects_K.tolist()),
    )


def _read(calibration: EffectCalibration, one: Compared, weight: float) -> tuple[np.ndarray, ...]:
    """Prediction, its deviation, measurement, its noise, and the weight of each gene."""
    mean_G = calibration.fold_change(one.calibrated_G, one.decoded_G, one.kind)
    sd_G = calibration.scale(np.sqrt(one.prior_variance_G), mean_G, one.kind)
    each = weight * min(1.0, GENES / len(mean_G))
    return mean_G, sd_G, one.measured_G, one.beside_G.clip(0), np.full(len(mean_G), each)


def _most_likely(
    ratio_R: np.ndarray,
    own_RK: np.ndarray,
    measured_R: np.ndarray,
    noise_R: np.ndarray,
    w_R: np.ndarray,
) -> ErrorShape:
    """By expectation maximisation, from m / s and the densities of genes that respond."""
    design_R2 = np.stack([np.ones_like(ratio_R), np.log1p(ratio_R**2)], axis=-1)
    odds_2, null_variance = PRIOR_MEAN, 0.03**2
    shares_K = np.full(len(TIED), 1 / len(TIED))
    for _ in range(ROUNDS):
        prior_R = expit(design_R2 @ odds_2)
        own_R = own_RK @ shares_K
        null_R = density(measured_R, null_variance + noise_R)
        responds_R = prior_R * own_R / (prior_R * own_R + (1 - prior_R) * null_R)
        shares_K = (w_R * responds_R / own_R) @ own_RK * shares_K + TIE * w_R.sum() * TIED
        shares_K = shares_K / shares_K.sum()
        null_variance = _null_variance(null_variance, measured_R, noise_R, w_R * (1 - responds_R))
        odds_2 = _logistic(odds_2, design_R2, responds_R, w_R)
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
    odds_2: np.ndarray, design_R2: np.ndarray, responds_R: np.ndarray, w_R: np.ndarray
) -> np.ndarray:
    """Three Newton steps of a logistic regression with a normal prior."""
    for _ in range(3):
        prior_R = expit(design_R2 @ odds_2)
        slope_2 = design_R2.T @ (w_R * (responds_R - prior_R))
        slope_2 = slope_2 - PRIOR_PRECISION * (odds_2 - PRIOR_MEAN)
        curvature_R = w_R * prior_R * (1 - prior_R)
        curvature_22 = design_R2.T @ (curvature_R[:, None] * design_R2) + np.diag(PRIOR_PRECISION)
        odds_2 = odds_2 + np.linalg.solve(curvature_22, slope_2)
        odds_2[1] = np.clip(odds_2[1], 0.0, MOST_SLOPE)
    return odds_2
