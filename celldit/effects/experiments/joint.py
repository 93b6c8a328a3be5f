"""Several effects at once: how what is known of one depends on what is known of another.

Estimates of single effects have their standard deviations; sums and differences of effects, and
what would be learned of one by measuring another, need covariances. In each rotated dimension k the
posterior of Q conditions given the C observed ones is

    mean = X S⁻¹ y,    covariance = P - X S⁻¹ Xᵀ,

with S as in :mod:`celldit.effects.posterior`, X the prior covariance of asked and observed
conditions and P that of the asked ones. Cubic in C once for each dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from celldit.conditions.condition import Condition
from celldit.effects.prior import EffectPrior


@dataclass(frozen=True, eq=False)
class JointEffects:
    """Posterior of Q effects together, in rotated dimensions.

    Attributes
    ----------
    mean_QF
        Posterior mean shifts, shape (Q, F).
    covariance_FQQ
        Posterior covariance in each dimension, which are independent, shape (F, Q, Q).
    basis_FF
        Rotated dimensions to the latent.
    """

    mean_QF: np.ndarray
    covariance_FQQ: np.ndarray
    basis_FF: np.ndarray

    def draws(self, n: int, seed: int) -> np.ndarray:
        """Deviations of the effects from their mean, in the latent, shape (n, Q, F)."""
        values_FQ, vectors_FQQ = np.linalg.eigh(self.covariance_FQQ)
        root_FQQ = vectors_FQQ * np.sqrt(values_FQ.clip(0))[:, None]
        normal_NFQ = np.random.default_rng(seed).normal(size=(n, *values_FQ.shape))
        drawn_NQF = np.einsum("fqr,nfr->nqf", root_FQQ, normal_NFQ)
        return drawn_NQF @ self.basis_FF


def joint_effects(prior: EffectPrior, conditions: Sequence[Condition]) -> JointEffects:
    """The posterior of Q conditions of trained strata.

    Of what the prior predicts of perturbations never measured it is that of
    :attr:`celldit.effects.prior.EffectPrior.of_unseen`.
    """
    seen = prior.conditions
    kernel_QQ, kernel_QC = (
        prior._sharing.dense(conditions, others) for others in (conditions, seen)
    )
    totals_Q, totals_C = (prior.kernel.totals(some) for some in (conditions, seen))
    levels_Q, levels_C = (prior._columns(some) for some in (conditions, seen))
    shifts_CF = prior.shifts - prior.means(seen)
    n, n_dims = len(conditions), len(prior.signal)
    mean_QF, covariance_FQQ = np.zeros((n, n_dims)), np.zeros((n_dims, n, n))
    for k in range(n_dims):
        signal, common = prior.signal[k], prior.common[k]
        own_QQ = signal * kernel_QQ + common * np.outer(totals_Q, totals_Q)
        cross_QC = signal * kernel_QC + common * np.outer(totals_Q, totals_C)
        for of_q, of_c in zip(levels_Q, levels_C, strict=True):
            own_QQ = own_QQ + np.outer(of_q[:, k], of_q[:, k])
            cross_QC = cross_QC + np.outer(of_q[:, k], of_c[:, k])
        factor = cho_factor(prior.covariance_of_shifts(k), lower=True)
        mean_QF[:, k] = cross_QC @ cho_solve(factor, shifts_CF[:, k])
        covariance_FQQ[k] = own_QQ - cross_QC @ cho_solve(factor, cross_QC.T)
    basis_FF = np.linalg.inv(prior.rotation)
    return JointEffects(mean_QF + prior.means(conditions), covariance_FQQ, basis_FF)
