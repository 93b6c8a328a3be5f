"""How far a condition is from those that were trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from enum import StrEnum

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


class Known:
    """What was in training, so that many conditions are classified in one pass.

    Features of perturbations are known for those `featured`; effects were measured `elsewhere` of
    some perturbations and combinations.
    """

    def __init__(
        self,
        trained: Iterable[Condition],
        featured: frozenset[str] = frozenset(),
        elsewhere: Container[tuple[str, ...]] = (),
    ) -> None:
        self.featured, self.elsewhere = featured, elsewhere
        self.times_in: dict[str, set[float]] = {}
        self.times_of: dict[tuple[tuple[str, ...], str], Counter[float | None]] = {}
        self.combinations: Counter[tuple[str, ...]] = Counter()
        self.parts: Counter[str] = Counter()
        for c in trained:
            times = set() if c.time is None else {c.time}
            self.times_in.setdefault(c.context, set()).update(times)
            if not c.is_control:
                self.times_of.setdefault((c.parts, c.context), Counter())[c.time] += 1
                self.combinations[c.parts] += 1
                self.parts.update(set(c.parts))

    def classify(self, condition: Condition, *, left_out: bool = False) -> Extrapolation:
        """Say what kind of extrapolation a condition is.

        Doses do not matter here, and times only where all else was seen. One of training may be
        `left_out`, as if it had not been there.
        """
        own = int(left_out)
        if condition.is_control:
            return _in_time(condition.time, self.times_in.get(condition.context, set()))
        times = self.times_of.get((condition.parts, condition.context), Counter())
        others = {time for time, n in times.items() if n > own * (time == condition.time)}
        if others:
            return _in_time(condition.time, {time for time in others if time is not None})
        if self.combinations[condition.parts] > own:
            return Extrapolation.CONTEXT
        missing = {part for part in condition.parts if self.parts[part] <= own}
        if not missing:
            return Extrapolation.COMBINATION
        if condition.parts in self.elsewhere or tuple(sorted(missing)) in self.elsewhere:
            return Extrapolation.ELSEWHERE
        return Extrapolation.UNSEEN if missing <= self.featured else Extrapolation.UNKNOWN


def _in_time(time: float | None, seen: set[float]) -> Extrapolation:
    """Whether what was seen was so at a time, about it, or to one side of it only."""
    if time is None or not seen or time in seen:
        return Extrapolation.SEEN
    return Extrapolation.BETWEEN if min(seen) < time < max(seen) else Extrapolation.BEYOND
