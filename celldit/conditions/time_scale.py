"""How far a course has come at a time: even steps, or fast at first and slower later.

Cells that are left alone go on at a steady pace as far as anybody knows. Cells that answer to
something done to them at time 0 approach a new steady state, fast at first: amounts that are made
and broken down at steady rates get there exponentially. With `rate` time constants from the first
to the last time of training the course has come

    progress(t) = (1 - exp(-rate (t - first) / (last - first))) / (1 - exp(-rate)),

which for a rate of 0 is the time itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from celldit.conditions.condition import Condition
    from celldit.conditions.strata import StratumKey

#: After three time constants 95% of the way is done; courses are rarely followed for longer.
RESPONSE_RATE = 3.0


@dataclass(frozen=True)
class TimeScale:
    """Progress of a course as a function of time, between the first and last of training."""

    first: float = 0.0
    last: float = 1.0
    rate: float = 0.0  # time constants between them; 0 for even steps

    def progress(self, time: float) -> float:
        """How far the course has come, 0 at the first and 1 at the last time; held outside."""
        if not self.last > self.first:
            return 0.0
        part = min(max((time - self.first) / (self.last - self.first), 0.0), 1.0)
        if self.rate == 0:
            return part
        return float(np.expm1(-self.rate * part) / np.expm1(-self.rate))

    def share(self, low: float, high: float, time: float) -> float:
        """How far a time is on the way from one to another, in [0, 1]."""
        start, end = self.progress(low), self.progress(high)
        if not end > start:
            return 0.0
        return min(max((self.progress(time) - start) / (end - start), 0.0), 1.0)

    def to_config(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TimeScale:
        """Rebuild what :meth:`to_config` wrote."""
        return cls(**{name: float(value) for name, value in config.items()})


def bracket(
    times: Sequence[float], time: float | None, scale: TimeScale | None = None
) -> tuple[float | None, float | None, float]:
    """Trained times before and after a time, and its share of the way between them.

    Times are sorted; beyond them the nearest is both. Without a `scale` the course has even steps.
    """
    if time is None or not times:
        return time, time, 0.0
    place = int(np.searchsorted(times, time))
    if place == len(times) or times[place] == time or place == 0:
        nearest = times[min(place, len(times) - 1)]
        return nearest, nearest, 0.0
    low, high = times[place - 1], times[place]
    return low, high, (scale or TimeScale(low, high)).share(low, high, time)


def bracketing(
    conditions: Sequence[Condition], trained: Iterable[StratumKey], scale: TimeScale
) -> tuple[list[Condition], list[Condition], np.ndarray]:
    """Q conditions at the trained times of their context before and after, and between these.

    Outside the times of its context a condition is at the nearest of these. Where the context was
    not in training, or there are no times, it is where it says. Both ends are the same where a
    condition's own time is trained, or none is known; shares say how far each is on the way in the
    progress of the course, in [0, 1), 0 at the earlier.
    """
    times = times_by_context(trained)
    ends = [bracket(times.get(c.context, ()), c.time, scale) for c in conditions]
    earlier = [replace(c, time=low) for c, (low, _, _) in zip(conditions, ends, strict=True)]
    later = [replace(c, time=high) for c, (_, high, _) in zip(conditions, ends, strict=True)]
    return earlier, later, np.array([share for _, _, share in ends], dtype=np.float64)


def times_by_context(strata: Iterable[StratumKey]) -> Mapping[str, list[float]]:
    """The times of each context, sorted."""
    times: dict[str, set[float]] = {}
    for context, time in strata:
        if time is not None:
            times.setdefault(context, set()).add(time)
    return {context: sorted(own) for context, own in times.items()}
