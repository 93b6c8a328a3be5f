"""Noise that shifts share, since conditions of a stratum are counted from the same controls.

The shift of condition c is the mean of its n_c cells less that of the m_s control cells of its
stratum s. Its noise is ε_c - δ_s, and δ_s is the same for all conditions of the stratum:

    N = diag(own variances) + Σ_s v_s 1_s 1_sᵀ,   v_s = 1 / m_s.

It is no part of any effect. Taken for independent noise, δ_s looks like an effect that all
perturbations have, and is predicted of every one. What cells will be measured to differ by from
these controls holds it all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from celldit.conditions.condition import Condition
from celldit.conditions.strata import StratumKey


@dataclass(frozen=True, eq=False)
class SharedNoise:
    """Who shares noise with whom among C shifts.

    Attributes
    ----------
    group_C
        Number of each one's stratum, from 0.
    variance_C
        v of the stratum; 0 where nothing is shared.
    number
        The strata in which noise is shared, by number.
    """

    group_C: np.ndarray
    variance_C: np.ndarray
    number: Mapping[StratumKey, int]

    @classmethod
    def of(
        cls, conditions: Sequence[Condition], of_controls: Mapping[StratumKey, float]
    ) -> SharedNoise:
        """Of some conditions, where `of_controls` has the variances of mean controls."""
        number = {key: i for i, key in enumerate(dict.fromkeys(c.stratum for c in conditions))}
        group_C = np.array([number[c.stratum] for c in conditions], dtype=np.int64)
        variance_C = np.array([of_controls.get(c.stratum, 0.0) for c in conditions], dtype=float)
        # What one condition alone has is noise like any other.
        is_alone_C = np.bincount(group_C, minlength=1)[group_C] < 2
        variance_C = np.where(is_alone_C, 0.0, variance_C)
        shared = set(group_C[variance_C > 0].tolist())
        return cls(group_C, variance_C, {key: i for key, i in number.items() if i in shared})

    def groups_of(self, conditions: Sequence[Condition]) -> np.ndarray:
        """Numbers of the strata of Q conditions, -1 where they share no noise with any."""
        strata = (None if c.is_control else c.stratum for c in conditions)
        return np.array([-1 if k is None else self.number.get(k, -1) for k in strata], np.int64)

    @cached_property
    def columns_CS(self) -> np.ndarray:
        """√v_s 1_s of the strata in which noise is shared, (C, S)."""
        member_CS = self.group_C[:, None] == np.array(list(self.number.values()), np.int64)
        columns_CS: np.ndarray = member_CS * np.sqrt(self.variance_C)[:, None]
        return columns_CS

    @property
    def means_SC(self) -> np.ndarray:
        """Weights of the mean over the conditions of each of these strata, (S, C)."""
        member_CS = self.columns_CS > 0
        means_SC: np.ndarray = (member_CS / member_CS.sum(axis=0)).T
        return means_SC

    def matrix(self, total_C: np.ndarray) -> np.ndarray:
        """N, of which `total_C` is the diagonal, (C, C)."""
        found_CC: np.ndarray = self.columns_CS @ self.columns_CS.T
        return found_CC + np.diag(total_C - self.variance_C)

    def take_off(self, own_C: np.ndarray, of_CX: np.ndarray) -> np.ndarray:
        """The inverse root of ``N / √own √ownᵀ`` times X columns, (C, X).

        Of ``I + u uᵀ``, u being a column over √own, it is ``I - (1 - 1 / √(1 + uᵀu)) u uᵀ / uᵀu``;
        columns of two strata have no row in common.
        """
        unit_CS = self.columns_CS / np.sqrt(own_C)[:, None]
        square_S = (unit_CS**2).sum(axis=0)
        share_S = (1 - 1 / np.sqrt(1 + square_S)) / square_S
        taken_CX: np.ndarray = unit_CS @ (share_S[:, None] * (unit_CS.T @ of_CX))
        return of_CX - taken_CX
