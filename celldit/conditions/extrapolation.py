"""How far a condition is from those that were trained."""

from __future__ import annotations

from collections.abc import Container, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celldit.conditions.condition import Condition


class Extrapolation(StrEnum):
    """Kinds of conditions, from the nearest to the farthest."""

    SEEN = "seen"
    CONTEXT = "new context"
    COMBINATION = "new combination"
    ELSEWHERE = "known elsewhere"
    UNSEEN = "unseen with features"
    UNKNOWN = "unseen without features"


def classify(
    condition: Condition,
    trained: Iterable[Condition],
    featured: frozenset[str] = frozenset(),
    elsewhere: Container[tuple[str, ...]] = (),
) -> Extrapolation:
    """Say what kind of extrapolation a condition is.

    Parameters
    ----------
    condition
        The condition asked for. Doses and times do not matter here.
    trained
        The conditions of training.
    featured
        Perturbations for which features are known.
    elsewhere
        Perturbations, and combinations of them, whose effects were measured elsewhere.
    """
    trained = [c for c in trained if not c.is_control]
    if condition.is_control:
        return Extrapolation.SEEN
    same = [c for c in trained if c.parts == condition.parts]
    if any(c.context == condition.context for c in same):
        return Extrapolation.SEEN
    if same:
        return Extrapolation.CONTEXT
    seen = {part for c in trained for part in c.parts}
    missing = set(condition.parts) - seen
    if not missing:
        return Extrapolation.COMBINATION
    if condition.parts in elsewhere or tuple(sorted(missing)) in elsewhere:
        return Extrapolation.ELSEWHERE
    return Extrapolation.UNSEEN if missing <= featured else Extrapolation.UNKNOWN
