"""What was done to a cell, and what is known of it before any network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.conditions.condition import Condition, ConditionTable
    from celldit.effects.estimate import EffectEstimate
    from celldit.effects.kernel import ConditionKernel
    from celldit.effects.prior import EffectPrior

__all__ = ["Condition", "ConditionKernel", "ConditionTable", "EffectEstimate", "EffectPrior"]

__getattr__, __dir__ = members_of(
    __name__,
    {
        "Condition": "condition",
        "ConditionKernel": ".effects.kernel",
        "ConditionTable": "condition",
        "EffectEstimate": ".effects.estimate",
        "EffectPrior": ".effects.prior",
    },
)
