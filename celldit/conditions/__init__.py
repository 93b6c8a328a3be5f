"""What was done to a cell, and what is known of it before any network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.conditions.condition import Condition, ConditionTable

__all__ = ["Condition", "ConditionTable"]

__getattr__, __dir__ = members_of(
    __name__, {"Condition": "condition", "ConditionTable": "condition"}
)
