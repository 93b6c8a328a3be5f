"""What perturbations do: a Gaussian process over conditions, in closed form, with its doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.effects.kernel import ConditionKernel
    from celldit.effects.prior import EffectEstimate, EffectPrior

__all__ = ["ConditionKernel", "EffectEstimate", "EffectPrior"]

__getattr__, __dir__ = members_of(
    __name__,
    {"ConditionKernel": "kernel", "EffectEstimate": "prior", "EffectPrior": "prior"},
)
