"""Between which doses and times training took place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from celldit.conditions.condition import Condition

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """Ranges of training."""

    # Smallest positive and largest dose of each perturbation that had one.
    doses: Mapping[str, Range]
    time: Range | None  # first and last; None where the data have no times

    @classmethod
    def of(cls, trained: Iterable[Condition]) -> Ranges:
        """Find the ranges of training conditions."""
        doses: dict[str, Range] = {}
        times = []
        for condition in trained:
            if condition.time is not None:
                times.append(condition.time)
            for part, dose in zip(condition.parts, condition.doses or (), strict=False):
                if dose > 0:
                    low, high = doses.get(part, (dose, dose))
                    doses[part] = min(low, dose), max(high, dose)
        return cls(doses, (min(times), max(times)) if times else None)

    def outside(self, condition: Condition) -> list[str]:
        """What of a condition lies outside, in words; nothing where all lies inside.

        A dose of 0 is no treatment, which needs no training.
        """
        found = []
        if self.time is not None and condition.time is not None:
            low, high = self.time
            if not low <= condition.time <= high:
                found.append(
                    f"Time {condition.time:g} lies outside the trained range {low:g} to {high:g}"
                )
        for part, dose in zip(condition.parts, condition.doses or (), strict=False):
            low, high = self.doses.get(part, (dose, dose))
            if dose > 0 and not low <= dose <= high:
                where = f"lies outside the trained range {low:g} to {high:g}"
                if low == high:
                    where = f"differs from the only trained dose, {low:g}"
                found.append(f"Dose {dose:g} of {part} {where}")
        return found
