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
    BETWEEN = "between times"
    BEYOND = "beyond times"
    CONTEXT = "new context"
    COMBINATION = "new combination"
    ELSEWHERE = "known elsewhere"
    UNSEEN = "unseen with features"
    UNKNOWN = "unseen without features"

    @property
    def apart_from_time(self) -> Extrapolation:
        """The kind as if the condition had been asked for at a time of training."""
        in_time = self in (Extrapolation.BETWEEN, Extrapolation.BEYOND)
        return Extrapolation.SEEN if in_time else self


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
        The condition asked for. Doses do not matter here, and times only where all else was seen.
    trained
        The conditions of training.
    featured
        Perturbations for which features are known.
    elsewhere
        Perturbations, and combinations of them, whose effects were measured elsewhere.
    """
    every = list(trained)
    trained = [c for c in every if not c.is_control]
    if condition.is_control:
        own = [c for c in every if c.context == condition.context]
        return _in_time(condition, own)
    same = [c for c in trained if c.parts == condition.parts]
    own = [c for c in same if c.context == condition.context]
    if own:
        return _in_time(condition, own)
    if same:
        return Extrapolation.CONTEXT
    seen = {part for c in trained for part in c.parts}
    missing = set(condition.parts) - seen
    if not missing:
        return Extrapolation.COMBINATION
    if condition.parts in elsewhere or tuple(sorted(missing)) in elsewhere:
        return Extrapolation.ELSEWHERE
    return Extrapolation.UNSEEN if missing <= featured else Extrapolation.UNKNOWN


def _in_time(condition: Condition, seen: Iterable[Condition]) -> Extrapolation:
    """Whether a condition that was seen was so at its time, about it, or to one side of it only."""
    times = sorted({c.time for c in seen if c.time is not None})
    if condition.time is None or not times or condition.time in times:
        return Extrapolation.SEEN
    inside = times[0] < condition.time < times[-1]
    return Extrapolation.BETWEEN if inside else Extrapolation.BEYOND
