"""What was done to a cell, and what is known of it before any network is trained."""

from celldit.conditions.condition import Condition, ConditionTable
from celldit.conditions.effect_estimate import EffectEstimate
from celldit.conditions.effect_prior import EffectPrior
from celldit.conditions.kernel import ConditionKernel

__all__ = ["Condition", "ConditionKernel", "ConditionTable", "EffectEstimate", "EffectPrior"]
