"""What was done to a cell, and what is known of it before any network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.conditions.condition import Condition, ConditionTable
    from celldit.conditions.effect_estimate import EffectEstimate
    from celldit.conditions.effect_prior import EffectPrior
    from celldit.conditions.kernel import ConditionKernel

__all__ = ["Condition", "ConditionKernel", "ConditionTable", "EffectEstimate", "EffectPrior"]

__getattr__, __dir__ = members_of(
    __name__,
    {
        "Condition": "condition",
        "ConditionKernel": "kernel",
        "ConditionTable": "condition",
        "EffectEstimate": "effect_estimate",
        "EffectPrior": "effect_prior",
    },
)
