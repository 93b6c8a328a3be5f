"""What to measure next: how effects depend on each other, and which conditions teach most.

What would be learned of one effect by measuring another needs their covariance. In each rotated
dimension k the posterior of Q conditions given the C observed ones has the covariance

    P - X S⁻¹ Xᵀ,

with S as in :mod:`celldit.effects.posterior`, X the prior covariance of asked and observed
conditions and P that of the asked ones. Cubic in C once for each dimension. Measuring a condition
with noise of a known size takes away

    Σ_k w_k Σ_q cov_k(q, c) (cov_k(c, c) + noise)⁻¹ cov_k(c, q)

of the variance of others, whatever is measured, with w_k the squared length of dimension k in units
of log expression; and c itself is unknown no more. Conditions are picked one after another, each
for what it takes away of what the ones before have left, which is near the best batch where what is
learned has diminishing returns (Krause, Singh & Guestrin 2008, J Mach Learn Res 9:235).

Where a source of features holds memberships in sets, the prior variance of a perturbation grows
with the number of its sets. Predictions lose nothing by it, but a choice of experiments would go by
it before all else, and measure what is best annotated. So what is chosen by takes likeness from a
source, and no size (:func:`evenly_described`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from celldit.conditions.condition import Condition
from celldit.effects.prior import EffectPrior


def joint_covariance(prior: EffectPrior, conditions: Sequence[Condition]) -> np.ndarray:
    """Posterior covariance of Q conditions of trained strata in each dimension, (F, Q, Q).

    Of what the prior predicts of perturbations never measured it is that of
    :attr:`celldit.effects.prior.EffectPrior.of_unseen`.
    """
    seen = prior.conditions
    kernel_QQ, kernel_QC = (
        prior.sharing.dense(conditions, others) for others in (conditions, seen)
    )
    totals_Q, totals_C = (prior.kernel.totals(some) for some in (conditions, seen))
    levels_Q, levels_C = (prior.columns(some) for some in (conditions, seen))
    covariances = []
    for k, (signal, common) in enumerate(zip(prior.signal, prior.common, strict=True)):
        own_QQ = signal * kernel_QQ + common * np.outer(totals_Q, totals_Q)
        cross_QC = signal * kernel_QC + common * np.outer(totals_Q, totals_C)
        for of_q, of_c in zip(levels_Q, levels_C, strict=True):
            own_QQ = own_QQ + np.outer(of_q[:, k], of_q[:, k])
            cross_QC = cross_QC + np.outer(of_q[:, k], of_c[:, k])
        factor = cho_factor(prior.covariance_of_shifts(k), lower=True)
        covariances.append(own_QQ - cross_QC @ cho_solve(factor, cross_QC.T))
    return np.array(covariances)


def evenly_described(prior: EffectPrior) -> EffectPrior:
    """The same prior, to which a perturbation of many sets is no more uncertain than one of few."""
    features = {
        source: (names, _of_unit_length(matrix) if sparse.issparse(matrix) else matrix)
        for source, (names, matrix) in prior.kernel.features.items()
    }
    return replace(prior, kernel=replace(prior.kernel, features=features))


def _of_unit_length(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), dtype=np.float64)).ravel()
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(length, 1e-12)) @ matrix)


@dataclass(frozen=True)
class Pick:
    """A candidate that was picked, by its position.

    Attributes
    ----------
    gain
        Variance that measuring it takes away, its own and of others, given those picked before, as
        a share of what was there at the start.
    of_others
        The part of it that is of others.
    left
        Share of the variance of those not picked that is left.
    """

    candidate: int
    gain: float
    of_others: float
    left: float


def greedy_design(
    covariance_FQQ: np.ndarray,
    weight_F: np.ndarray,
    candidates: Sequence[np.ndarray],
    about_Q: np.ndarray,
    noise_Q: np.ndarray,
    n: int,
) -> list[Pick]:
    """Pick n candidates, or all where there are fewer, the best first.

    Parameters
    ----------
    covariance_FQQ, weight_F
        Posterior covariance of Q conditions in each of F independent dimensions, and what a
        dimension counts.
    candidates
        Rows of the conditions that are measured with each candidate: one for each context.
    about_Q
        Which conditions are to be learned about; a picked one counts no more.
    noise_Q
        Variance of the noise, were a condition measured.
    """
    covariance_FQQ, about_Q = covariance_FQQ.copy(), about_Q.astype(bool).copy()
    whole = _variance(covariance_FQQ, weight_F, about_Q)
    left, picks = list(range(len(candidates))), []
    for _ in range(min(n, len(candidates))):
        own = [_own(covariance_FQQ, weight_F, candidates[c], about_Q) for c in left]
        gains = [
            one + _of_others(covariance_FQQ, weight_F, candidates[c], about_Q, noise_Q)
            for c, one in zip(left, own, strict=True)
        ]
        best = int(np.argmax(gains))
        rows = candidates[left[best]]
        across_FQS, inverse_FSS = _observed(covariance_FQQ, rows, noise_Q)
        covariance_FQQ -= across_FQS @ inverse_FSS @ across_FQS.transpose(0, 2, 1)
        about_Q[rows] = False
        rest = _variance(covariance_FQQ, weight_F, about_Q)
        start = max(whole, 1e-300)
        others = (gains[best] - own[best]) / start
        picks.append(Pick(left.pop(best), gains[best] / start, others, rest / start))
    return picks


def _variance(covariance_FQQ: np.ndarray, weight_F: np.ndarray, about_Q: np.ndarray) -> float:
    return float(weight_F @ np.diagonal(covariance_FQQ, axis1=1, axis2=2)[:, about_Q].sum(axis=1))


def _own(
    covariance_FQQ: np.ndarray, weight_F: np.ndarray, rows: np.ndarray, about_Q: np.ndarray
) -> float:
    """Variance of a candidate, as far as it is asked about: measured, it is unknown no more."""
    only_Q = np.zeros_like(about_Q)
    only_Q[rows] = about_Q[rows]
    return _variance(covariance_FQQ, weight_F, only_Q)


def _observed(
    covariance_FQQ: np.ndarray, rows: np.ndarray, noise_Q: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    across_FQS = covariance_FQQ[:, :, rows]
    noisy_FSS = across_FQS[:, rows] + np.diag(noise_Q[rows])
    return across_FQS, np.linalg.inv(noisy_FSS)


def _of_others(
    covariance_FQQ: np.ndarray,
    weight_F: np.ndarray,
    rows: np.ndarray,
    about_Q: np.ndarray,
    noise_Q: np.ndarray,
) -> float:
    """Variance taken from those that are asked about, but for the candidate itself."""
    others_Q = about_Q.copy()
    others_Q[rows] = False
    across_FQS, inverse_FSS = _observed(covariance_FQQ, rows, noise_Q)
    across_FQS = across_FQS[:, others_Q]
    taken_F = np.einsum("fqs,fst,fqt->f", across_FQS, inverse_FSS, across_FQS)
    return float(weight_F @ taken_F)
