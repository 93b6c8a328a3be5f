"""Which states of one time go on to which of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from celldit.conditions import Condition
from celldit.conditions.states import States


@dataclass(frozen=True, eq=False)
class Partners:
    """The plan that takes the states of one condition to those of another with the least motion.

    Motion is squared distance. What all cells move by adds the same to every plan, so it does not
    matter.

    Attributes
    ----------
    rows_here, rows_there
        M states of the one, and P of the other.
    cumulative_MP
        For each of the one, cumulative shares of its cells that go to each of the other. As many
        cells arrive in each as there are, if as many start in each as there are.
    """

    rows_here: np.ndarray
    rows_there: np.ndarray
    cumulative_MP: np.ndarray

    @classmethod
    def of(cls, states: States, here: Condition, there: Condition) -> Partners:
        """Find the plan."""
        (rows_here, share_M), (rows_there, share_P) = states.options(here), states.options(there)
        m, p = len(rows_here), len(rows_there)
        away_MPF = states.offsets_SF[rows_here][:, None] - states.offsets_SF[rows_there]
        leave = np.kron(np.eye(m), np.ones(p))
        arrive = np.kron(np.ones(m), np.eye(p))
        # The last arrival follows from the others; rounding must not contradict it.
        plan_MP = linprog(
            (away_MPF**2).sum(2).ravel(),
            A_eq=np.concatenate([leave, arrive[:-1]]),
            b_eq=np.concatenate([share_M, share_P[:-1]]),
        ).x.reshape(m, p)
        cumulative_MP = np.cumsum(plan_MP, axis=1)
        return cls(rows_here, rows_there, cumulative_MP / cumulative_MP[:, -1:])

    def draw(self, state_B: np.ndarray, uniform_B: np.ndarray) -> np.ndarray:
        """Where B cells in the states `state_B` go, from uniform numbers, int64."""
        at_B = np.searchsorted(self.rows_here, state_B)
        within_B = (self.cumulative_MP[at_B] < uniform_B[:, None]).sum(1)
        return self.rows_there[within_B.clip(max=len(self.rows_there) - 1)]
