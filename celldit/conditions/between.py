"""Between which trained times a condition lies.

A condition at a time t between two of training is a share of the way from the condition at the
earlier of them to that at the later, in the progress of the course
(:class:`~celldit.conditions.time_scale.TimeScale`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from celldit.conditions.condition import Condition
from celldit.conditions.strata import StratumKey
from celldit.conditions.time_scale import TimeScale, bracket


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
    def of(
        cls, conditions: Sequence[Condition], trained: Iterable[StratumKey], scale: TimeScale
    ) -> Between:
        """Find the trained times about each condition.

        Outside the times of its context a condition is at the nearest of these. Where the context
        was not in training, or there are no times, a condition is where it says.
        """
        times = times_by_context(trained)
        ends = [bracket(times.get(c.context, ()), c.time, scale) for c in conditions]
        return cls(
            tuple(replace(c, time=low) for c, (low, _, _) in zip(conditions, ends, strict=True)),
            tuple(replace(c, time=high) for c, (_, high, _) in zip(conditions, ends, strict=True)),
            np.array([share for _, _, share in ends], dtype=np.float64),
        )


def times_by_context(strata: Iterable[StratumKey]) -> Mapping[str, list[float]]:
    """The times of each context, sorted."""
    times: dict[str, set[float]] = {}
    for context, time in strata:
        if time is not None:
            times.setdefault(context, set()).add(time)
    return {context: sorted(own) for context, own in times.items()}
