"""Measures of the mean shift, of one perturbation and of many beside each other.

A shift is the mean log expression of the perturbed cells minus that of the control cells.
Correlation and cosine are plain plug-in definitions: the noise of the means lowers them, which is
why a split-half ceiling belongs beside them. From squared errors that noise can be subtracted.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from celldit.errors import InputError

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
    u, v = (np.asarray(shift_G, dtype=np.float64) for shift_G in (predicted_G, true_G))
    if genes is not None:
        u, v = u[genes], v[genes]
    return _cosine(u - u.mean(), v - v.mean()) if u.size else float("nan")


def cosine_shift(predicted_G: np.ndarray, true_G: np.ndarray) -> float:
    """Cosine of the angle between two shifts.

    Parameters
    ----------
    predicted_G, true_G
        Shifts in log expression, shape (G,).

    Returns
    -------
    float
        In [-1, 1]; 0 by definition when either shift is zero, NaN without genes.
    """
    u, v = (np.asarray(shift_G, dtype=np.float64) for shift_G in (predicted_G, true_G))
    return _cosine(u, v)


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
    u, v = (np.asarray(shift_G, dtype=np.float64) for shift_G in (predicted_G, true_G))
    square = float(v @ v)
    effect = square - effect_noise
    if square == 0 or effect < LEAST_EFFECT * square:
        return float("nan")
    return (float((u - v) @ (u - v)) - error_noise) / effect


def centroid_correlations(predicted_PG: np.ndarray, true_PG: np.ndarray) -> np.ndarray:
    """Pearson correlation of shifts taken from the centroid of the measured perturbations.

    From control cells, what all perturbations have in common makes every prediction look right;
    from their centroid only what sets one apart counts.

    Parameters
    ----------
    predicted_PG, true_PG
        Shifts of P perturbations in log expression, shape (P, G), in the same order.

    Returns
    -------
    numpy.ndarray of float, shape (P,)
        0 for a prediction of the centroid itself. All NaN with fewer than three perturbations: of
        two, each lies opposite the other.
    """
    u_PG = np.asarray(predicted_PG, dtype=np.float64)
    v_PG = np.asarray(true_PG, dtype=np.float64)
    if len(v_PG) < 3:
        return np.full(len(v_PG), np.nan)
    centroid_G = v_PG.mean(axis=0)
    return np.array(
        [pearson_shift(u - centroid_G, v - centroid_G) for u, v in zip(u_PG, v_PG, strict=True)]
    )


def discrimination_scores(
    predicted_PG: np.ndarray,
    true_PG: np.ndarray,
    *,
    metric: Literal["cosine", "l1"] = "cosine",
    left_out: np.ndarray | None = None,
) -> np.ndarray:
    """Perturbation discrimination score of each of P predicted shifts.

    The true shifts are ranked by their distance to the predicted shift of perturbation p; with
    ``rank`` the number of others that lie closer than p's own, the score is
    ``1 - 2 rank / (P - 1)``: 1 when none does, -1 when all do, 0 by chance. Others at the same
    distance count one half each (mid-rank), so that a prediction of no effect scores 0 exactly.

    Parameters
    ----------
    predicted_PG, true_PG
        Shifts of P perturbations in log expression, shape (P, G), in the same order.
    metric
        ``"cosine"`` (1 - cosine; 1 when a shift is zero) or ``"l1"`` (sum of absolute differences).
    left_out
        Positions of genes that do not count, those that any of the perturbations acts on: a
        knocked-out gene gives its perturbation away. Leaving out only p's own target leaves the
        others' knock-outs in their shifts, which pushes them away from every prediction: an empty
        one would score far above chance. None leaves nothing out.

    Returns
    -------
    numpy.ndarray of float, shape (P,)
        1 is best. All NaN when there are fewer than two perturbations.

    Raises
    ------
    InputError
        If ``metric`` is neither of the two or the shapes differ.

    Notes
    -----
    ``2 s - 1`` of the score s of cell-eval2 (``pds_cosine``, ``pds_l1``), where chance is one half.
    """
    u_PG = np.asarray(predicted_PG, dtype=np.float64)
    v_PG = np.asarray(true_PG, dtype=np.float64)
    if u_PG.shape != v_PG.shape:
        raise InputError(
            f"The predicted shifts have shape {u_PG.shape} and the true ones {v_PG.shape}; "
            "give one row for each perturbation and one column for each gene in both."
        )
    if metric not in ("cosine", "l1"):
        raise InputError(f"Discrimination has no metric {metric!r}; use 'cosine' or 'l1'.")
    n = len(u_PG)
    if n < 2:
        return np.full(n, np.nan)
    kept = np.ones(u_PG.shape[1], dtype=bool)
    if left_out is not None:
        kept[left_out] = False
    if not kept.any():
        return np.full(n, np.nan)
    distance_PP = _distances(u_PG[:, kept], v_PG[:, kept], metric)
    own_P = np.diagonal(distance_PP)[:, None]
    tied_PP = np.isclose(distance_PP, own_P, rtol=1e-9, atol=1e-12)
    closer_P = ((distance_PP < own_P) & ~tied_PP).sum(axis=1)
    return 1.0 - (2.0 * closer_P + tied_PP.sum(axis=1) - 1.0) / (n - 1)


def _distances(u_PG: np.ndarray, v_PG: np.ndarray, metric: str) -> np.ndarray:
    if metric == "l1":
        return cdist(u_PG, v_PG, "cityblock")
    lengths_PP = np.outer(np.linalg.norm(u_PG, axis=1), np.linalg.norm(v_PG, axis=1))
    cosine_PP = np.divide(
        u_PG @ v_PG.T, lengths_PP, out=np.zeros_like(lengths_PP), where=lengths_PP > 0
    )
    return 1.0 - cosine_PP


def largest(true_G: np.ndarray, n: int = 20) -> np.ndarray:
    """Positions of the n genes with the largest absolute true shift, largest first.

    Ties go to the gene that stands first, so the choice is reproducible.
    """
    return np.argsort(-np.abs(true_G), kind="stable")[:n]


def _cosine(u: np.ndarray, v: np.ndarray) -> float:
    if not u.size:
        return float("nan")
    length_u, length_v = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    # A constant vector minus its mean leaves rounding errors: a direction without meaning.
    floor = 1e-12 * np.sqrt(u.size)
    if length_u <= floor or length_v <= floor:
        return 0.0
    return float(np.clip((u / length_u) @ (v / length_v), -1.0, 1.0))
