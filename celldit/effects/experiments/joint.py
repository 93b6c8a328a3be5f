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

    def sd_of(self, weights_Q: np.ndarray, loadings_FG: np.ndarray) -> np.ndarray:
        """Standard deviation of a weighted sum of the effects, after a linear map, (G,)."""
        variance_F = np.einsum("q,fqr,r->f", weights_Q, self.covariance_FQQ, weights_Q).clip(0)
        sd_G: np.ndarray = np.sqrt(variance_F @ (self.basis_FF @ loadings_FG) ** 2)
        return sd_G

    def draws(self, n: int, seed: int) -> np.ndarray:
        """Deviations of the effects from their mean, in the latent, shape (n, Q, F)."""
        values_FQ, vectors_FQQ = np.linalg.eigh(self.covariance_FQQ)
        root_FQQ = vectors_FQQ * np.sqrt(values_FQ.clip(0))[:, None]
        normal_NFQ = np.random.default_rng(seed).normal(size=(n, *values_FQ.shape))
        drawn_NQF = np.einsum("fqr,nfr->nqf", root_FQQ, normal_NFQ)
        return drawn_NQF @ self.basis_FF


def joint_effects(prior: EffectPrior, conditions: Sequence[Condition]) -> JointEffects:
    """The posterior of several conditions of trained strata.

    Parameters
    ----------
    prior
        The effect model; for what it predicts of perturbations never measured,
        :attr:`celldit.effects.prior.EffectPrior.of_unseen`.
    conditions
        Q conditions.
    """
    seen = prior.conditions
    kernel_QQ = prior.covariance(conditions, conditions)
    totals_Q = prior.kernel.totals(conditions)
    levels_Q = prior._columns(conditions)
    shifts_CF = prior.shifts - prior.level_means(seen)
    kernel_QC, kernel_CC = prior.covariance(conditions, seen), prior.covariance(seen, seen)
    totals_C, levels_C = prior.kernel.totals(seen), prior._columns(seen)
    open_C = prior.baselines.columns(seen)
    n, n_dims = len(conditions), len(prior.signal)
    mean_QF, covariance_FQQ = np.zeros((n, n_dims)), np.zeros((n_dims, n, n))
    for k in range(n_dims):
        signal, common = prior.signal[k], prior.common[k]
        own_QQ = signal * kernel_QQ + common * np.outer(totals_Q, totals_Q)
        cross_QC = signal * kernel_QC + common * np.outer(totals_Q, totals_C)
        seen_CC = signal * kernel_CC + common * np.outer(totals_C, totals_C)
        for of_q, of_c in zip(levels_Q, levels_C, strict=True):
            own_QQ = own_QQ + np.outer(of_q[:, k], of_q[:, k])
            cross_QC = cross_QC + np.outer(of_q[:, k], of_c[:, k])
            seen_CC = seen_CC + np.outer(of_c[:, k], of_c[:, k])
        for of_c in open_C:
            seen_CC = seen_CC + np.outer(of_c[:, k], of_c[:, k])
        factor = cho_factor(seen_CC + np.diag(prior.noise), lower=True)
        mean_QF[:, k] = cross_QC @ cho_solve(factor, shifts_CF[:, k])
        covariance_FQQ[k] = own_QQ - cross_QC @ cho_solve(factor, cross_QC.T)
    basis_FF = np.linalg.inv(prior.rotation)
    return JointEffects(mean_QF + prior.level_means(conditions), covariance_FQQ, basis_FF)
