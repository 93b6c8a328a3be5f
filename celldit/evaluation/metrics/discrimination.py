"""Perturbation discrimination: is a predicted effect closest to the effect it stands for?"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from celldit.errors import InputError


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
