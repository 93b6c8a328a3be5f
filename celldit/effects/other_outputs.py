"""Something else that was observed of conditions, told by the kernel of an effect prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from celldit.conditions.condition import Condition
from celldit.conditions.strata import StratumKey
from celldit.effects.posterior import Observed
from celldit.effects.prior import EffectPrior
from celldit.effects.shared_noise import SharedNoise
from celldit.effects.sharing import SharingKernel


@dataclass(frozen=True, eq=False)
class OtherOutputs:
    """Observations of C conditions in F dimensions of their own.

    Attributes
    ----------
    prior
        Without tables, which say nothing of these.
    sharing
        Its kernel, of the C conditions.
    observed
        The observations.
    """

    prior: EffectPrior
    sharing: SharingKernel
    observed: Observed

    @classmethod
    def of(
        cls,
        prior: EffectPrior,
        conditions: Sequence[Condition],
        noise_C: np.ndarray,
        shifts_CF: np.ndarray,
        signal_F: np.ndarray,
        common_F: np.ndarray,
    ) -> OtherOutputs:
        """Of conditions in trained strata; λ and μ are those of the dimensions."""
        bare = prior.without_tables
        if tuple(conditions) == bare.conditions and np.array_equal(noise_C, bare.noise):
            # The decomposition is there already.
            observed = bare.observed.with_shifts(shifts_CF, signal_F, common_F)
            return cls(bare, bare.sharing, observed)
        sharing = replace(bare.sharing, conditions=tuple(conditions))
        shared = SharedNoise.of(conditions, bare.control_noise)
        observed = sharing.observed(shifts_CF, noise_C, signal_F, common_F, shared=shared)
        return cls(bare, sharing, observed)

    def mean(
        self,
        conditions: Sequence[Condition],
        positions: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> np.ndarray:
        """What is expected of Q conditions, (Q, F); see :meth:`EffectPrior.estimate`."""
        sharing = self.sharing.knowing(self.prior.knowing(positions).kernel)
        totals_Q = self.prior.kernel.totals(conditions)
        own_QC, columns_QR = sharing.own(conditions), sharing.columns(conditions)
        mean_QF = self.observed.mean(own_QC, totals_Q, columns_QR=columns_QR)
        if self.prior.from_measured and self.observed.shared is not None:
            mean_QF = mean_QF + self.observed.noise(self.observed.shared.groups_of(conditions))
        return mean_QF

    def leave_one_out(self) -> np.ndarray:
        """The same of each observed condition without itself, (C, F)."""
        mean_CF = self.observed.leave_one_out()[0]
        if self.prior.from_measured and self.observed.shared is not None:
            group_C = self.observed.shared.group_C
            mean_CF = mean_CF + self.observed.noise(group_C, np.arange(len(group_C)))
        return mean_CF
