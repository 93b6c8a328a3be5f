"""Between which trained times a condition lies.

Nothing was measured between two times of training, so what a network says there would be a guess.
What is known is both ends: a condition at a time t between them is the condition at either end,
and a share of the way from one to the other,

    share = (t - earlier) / (later - earlier).

What is done with that is the samplers' matter: expected counts lie on the straight line between
those of the ends, as amounts of RNA do while they are made and broken down at steady rates. The
middle of their logarithms would lie below it, the more so the more a gene changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from celldit.conditions.condition import Condition
from celldit.conditions.strata import StratumKey


@dataclass(frozen=True, eq=False)
class Between:
    """Where Q conditions lie among the times of training.

    Attributes
    ----------
    earlier, later
        Each at the nearest trained times of its context, before and after; both the same where its
        own time is trained, or none is known.
    share_Q
        How far each is on the way, in [0, 1); 0 is the earlier.
    """

    earlier: tuple[Condition, ...]
    later: tuple[Condition, ...]
    share_Q: np.ndarray

    @classmethod
    def of(cls, conditions: Sequence[Condition], trained: Iterable[StratumKey]) -> Between:
        """Find the trained times about each condition.

        Outside the times of its context a condition is at the nearest of these. Where the context
        was not in training, or there are no times, a condition is where it says.

        Parameters
        ----------
        conditions
            Q conditions.
        trained
            Contexts and times of training.
        """
        times: dict[str, set[float]] = {}
        for context, time in trained:
            if time is not None:
                times.setdefault(context, set()).add(time)
        ends = [_ends(c, sorted(times.get(c.context, ()))) for c in conditions]
        return cls(
            tuple(replace(c, time=low) for c, (low, _, _) in zip(conditions, ends, strict=True)),
            tuple(replace(c, time=high) for c, (_, high, _) in zip(conditions, ends, strict=True)),
            np.array([share for _, _, share in ends], dtype=np.float64),
        )


def _ends(condition: Condition, times: Sequence[float]) -> tuple[float | None, float | None, float]:
    """Trained times before and after a condition, and its share of the way between them."""
    time = condition.time
    if time is None or not times:
        return time, time, 0.0
    place = int(np.searchsorted(times, time))
    if place == len(times) or times[place] == time or place == 0:
        nearest = times[min(place, len(times) - 1)]
        return nearest, nearest, 0.0
    low, high = times[place - 1], times[place]
    return low, high, (time - low) / (high - low)
