"""Weighted ridge regression whose strength is chosen by leaving conditions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STRENGTHS = (1e-6, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """A fitted regression: coefficients (P, G), and the strength chosen.

    `errors` are the weighted squared errors on left-out conditions, for each strength tried.
    """

    coefficients: np.ndarray
    strength: float
    errors: tuple[float, ...]


def fit_ridge(
    design_EP: np.ndarray,
    shifts_EG: np.ndarray,
    weights_E: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> RidgeFit:
    """Minimise ``sum_e w_e |y_e - x_e B|^2 + strength |B|^2``, weights scaled to mean 1.

    E conditions are left out one by one to choose among the strengths, ascending, above 0. The
    error without a condition e needs no refit: the residual of the full fit over ``1 - H_ee``, with
    H the hat matrix, is that of the fit without e. Among equal errors the smallest strength wins:
    where leaving out says nothing, nothing is shrunk.

    References
    ----------
    Allen (1974), The relationship between variable selection and data augmentation and a method for
    prediction (PRESS).
    """
    scale_E = np.sqrt(np.asarray(weights_E, dtype=np.float64) / np.mean(weights_E))
    left_ER, singular_R, right_RP = np.linalg.svd(scale_E[:, None] * design_EP, full_matrices=False)
    target_EG = scale_E[:, None] * shifts_EG
    projected_RG = left_ER.T @ target_EG
    errors = []
    for strength in strengths:
        kept_R = singular_R**2 / (singular_R**2 + strength)
        residual_EG = target_EG - left_ER @ (kept_R[:, None] * projected_RG)
        free_E = 1.0 - (left_ER**2) @ kept_R
        errors.append(float(np.sum(np.square(residual_EG / free_E[:, None]))))
    floor = min(errors) * (1.0 + 1e-6) + 1e-12 * float(np.sum(np.square(target_EG)))
    best = next(i for i, error in enumerate(errors) if error <= floor)
    shrink_R = singular_R / (singular_R**2 + strengths[best])
    coefficients_PG = right_RP.T @ (shrink_R[:, None] * projected_RG)
    return RidgeFit(coefficients_PG, float(strengths[best]), tuple(errors))
