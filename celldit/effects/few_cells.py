"""Conditions of one or two cells: they tell of themselves, and of nothing else.

What so few cells show is too odd to learn from, but it is all that is known of the condition
itself: its shift y, with noise s², is weighed against what all other conditions say of it, a mean m
with variance v,

    mean = m + g (y - m),   variance = (1 - g) v,   g = v / (v + s²),

which is what the Gaussian process over these and the one condition would say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from celldit.conditions.condition import Condition

# Means of n cells vary by (1 + this / n) / n: one cell scatters more than the many from which it is
# known how much cells scatter.
ODD = 2.0


def variance_of_few(n_cells: np.ndarray) -> np.ndarray:
    """Variance of means of few cells along directions in which cells scatter by 1."""
    return np.asarray((1 + ODD / n_cells) / n_cells, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class FewCells:
    """Conditions too small to be among the observations.

    Attributes
    ----------
    conditions
        E of them.
    shifts_EF
        Their shifts in rotated coordinates.
    noise_EF
        Variance of these.
    """

    conditions: tuple[Condition, ...]
    shifts_EF: np.ndarray
    noise_EF: np.ndarray

    @classmethod
    def none(cls, n_dims: int) -> FewCells:
        """No such condition."""
        return cls((), np.zeros((0, n_dims)), np.zeros((0, n_dims)))

    def updated(
        self, conditions: Sequence[Condition], mean_QF: np.ndarray, variance_QF: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Estimates of Q conditions, for those that are among these with their own cells.

        Mean and variance are what all others say, in rotated coordinates, (Q, F).
        """
        row_of = {c: row for row, c in enumerate(self.conditions)}
        own = [(q, row_of[c]) for q, c in enumerate(conditions) if c in row_of]
        if not own:
            return mean_QF, variance_QF
        at, rows = np.array(own).T
        mean_QF, variance_QF = mean_QF.copy(), variance_QF.clip(min=0)
        gain = variance_QF[at] / (variance_QF[at] + self.noise_EF[rows])
        mean_QF[at] += gain * (self.shifts_EF[rows] - mean_QF[at])
        variance_QF[at] *= 1 - gain
        return mean_QF, variance_QF

    def without(self, gone: Sequence[Condition]) -> FewCells:
        """Had some conditions not been observed."""
        left_out = set(gone)
        keep = [row for row, c in enumerate(self.conditions) if c not in left_out]
        kept = tuple(self.conditions[row] for row in keep)
        return FewCells(kept, self.shifts_EF[keep], self.noise_EF[keep])

    def turned(self, turn_FF: np.ndarray) -> FewCells:
        """In other coordinates; variances as far as directions stay independent."""
        return replace(
            self, shifts_EF=self.shifts_EF @ turn_FF, noise_EF=self.noise_EF @ turn_FF**2
        )

    def beside(self, earlier: FewCells) -> FewCells:
        """Together with those that only another training saw."""
        more = earlier.without(self.conditions)
        return FewCells(
            (*more.conditions, *self.conditions),
            np.concatenate([more.shifts_EF, self.shifts_EF]),
            np.concatenate([more.noise_EF, self.noise_EF]),
        )
