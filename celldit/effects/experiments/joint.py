"""Several effects at once: how what is known of one depends on what is known of another.

Estimates of single effects have their standard deviations; what would be learned of one by
measuring another needs covariances. In each rotated dimension k the posterior of Q conditions given
the C observed ones has the covariance

    P - X S⁻¹ Xᵀ,

with S as in :mod:`celldit.effects.posterior`, X the prior covariance of asked and observed
conditions and P that of the asked ones. Cubic in C once for each dimension.

Where a source of features holds memberships in sets, the prior variance of a perturbation grows
with the number of its sets. Predictions lose nothing by it, but a choice of experiments would go by
it before all else, and measure what is best annotated. So what is chosen by takes likeness from a
source, and no size (:func:`evenly_described`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
