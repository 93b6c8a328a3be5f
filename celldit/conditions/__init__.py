"""What was done to a cell, and what is known of it before any network is trained."""

from celldit.conditions.condition import Condition, ConditionTable

__all__ = ["Condition", "ConditionTable"]
