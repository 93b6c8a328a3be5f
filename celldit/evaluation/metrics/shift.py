"""Measures of the mean shift: how the average cell moves from control to perturbed.

A shift is the mean log expression of the perturbed cells minus that of the control cells.
Correlation and cosine are plain plug-in definitions: the noise of the means lowers them, which is
why a split-half ceiling belongs beside them. From squared errors that noise can be subtracted.
"""

from __future__ import annotations

import numpy as np

# A true effect of which less than this share is left without noise cannot be told from none.
LEAST_EFFECT = 0.1


def pearson_shift(
    predicted_G: np.ndarray, true_G: np.ndarray, genes: np.ndarray | None = None
) -> float:
    """Pearson correlation of two shifts over genes.

    Parameters
    ----------
    predicted_G, true_G
        Shifts in log expression, shape (G,).
    genes
        Positions or mask of the genes to use; None for all.

    Returns
    -------
    float
        In [-1, 1]. A constant shift (no change, for one) says nothing about genes: 0 by definition.
        NaN when no gene is left.
    """
    u, v = _pair(predicted_G, true_G, genes)
    return _cosine(u - u.mean(), v - v.mean()) if u.size else float("nan")


def cosine_shift(
    predicted_G: np.ndarray, true_G: np.ndarray, genes: np.ndarray | None = None
) -> float:
    """Cosine of the angle between two shifts.

    Parameters
    ----------
    predicted_G, true_G
        Shifts in log expression, shape (G,).
    genes
        Positions or mask of the genes to use; None for all.

    Returns
    -------
    float
        In [-1, 1]; 0 by definition when either shift is zero, NaN when no gene is left.
    """
    u, v = _pair(predicted_G, true_G, genes)
    return _cosine(u, v) if u.size else float("nan")


def normalized_squared_error(
    predicted_G: np.ndarray,
    true_G: np.ndarray,
    *,
    error_noise: float = 0.0,
    effect_noise: float = 0.0,
) -> float:
    """Squared error of a shift over the squared true effect, ``|u - v|^2 / |v|^2``.

    With the noise of the means subtracted from either square, so that a measurement with few cells
    is no harder to predict than one with many.

    Parameters
    ----------
    predicted_G, true_G
        Shifts u and v in log expression, shape (G,).
    error_noise, effect_noise
        Expected squares of the noise in ``u - v`` and in ``v``, summed over the genes.

    Returns
    -------
    float
        0 on average for a perfect prediction, which may fall below; 1 for "no change"; without
        upper bound. NaN when less than a tenth of the squared true shift is left without its noise.
    """
    u, v = _pair(predicted_G, true_G, None)
    square = float(v @ v)
    effect = square - effect_noise
    if square == 0 or effect < LEAST_EFFECT * square:
        return float("nan")
    return (float((u - v) @ (u - v)) - error_noise) / effect


def largest(true_G: np.ndarray, n: int = 20) -> np.ndarray:
    """Positions of the n genes with the largest absolute true shift, largest first.

    Ties go to the gene that stands first, so the choice is reproducible.
    """
    return np.argsort(-np.abs(true_G), kind="stable")[:n]


def _pair(
    predicted_G: np.ndarray, true_G: np.ndarray, genes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    u, v = np.asarray(predicted_G, dtype=np.float64), np.asarray(true_G, dtype=np.float64)
    return (u, v) if genes is None else (u[genes], v[genes])


def _cosine(u: np.ndarray, v: np.ndarray) -> float:
    length_u, length_v = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    # A constant vector minus its mean leaves rounding errors: a direction without meaning.
    floor = 1e-12 * np.sqrt(u.size)
    if length_u <= floor or length_v <= floor:
        return 0.0
    return float(np.clip((u / length_u) @ (v / length_v), -1.0, 1.0))
