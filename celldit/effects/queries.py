"""What conditions that are asked about have in common with the observed ones.

The parts of :class:`celldit.effects.posterior.Observed` that depend on the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

Matrix: TypeAlias = Any
"""An array, or a sparse matrix in rows."""


@dataclass(frozen=True, eq=False)
class Queries:
    """Covariances of Q conditions with the observed ones, x = λ p + μ a u + Σ h v, in V.

    V and the rest are those of :mod:`celldit.effects.posterior`.
    """

    p_QC: Matrix
    a_Q: np.ndarray
    u_C: np.ndarray
    s_CF: np.ndarray
    removed: Sequence[np.ndarray]
    signal_F: np.ndarray
    common_F: np.ndarray
    further: Sequence[tuple[np.ndarray, np.ndarray]]

    @property
    def _share_QF(self) -> np.ndarray:
        return self.common_F * self.a_Q[:, None]

    def times(self, right_CF: np.ndarray) -> np.ndarray:
        """Products with one vector per dimension, (Q, F)."""
        product = self.signal_F * (self.p_QC @ right_CF) + self._share_QF * (self.u_C @ right_CF)
        for h_QF, v_CF in self.further:
            product = product + h_QF * (v_CF * right_CF).sum(0)
        return product

    def prior(self, variances_Q: np.ndarray, n_columns: int = 0) -> np.ndarray:
        """Variances before anything is observed, (Q, F); those of K hold its first columns."""
        variance = self.signal_F * variances_Q[:, None] + self._share_QF * self.a_Q[:, None]
        for h_QF, _ in self.further[n_columns:]:
            variance = variance + h_QF**2
        return variance

    @cached_property
    def _onto_removed(self) -> list[np.ndarray]:
        return [self.times(along_CF) for along_CF in self.removed]

    def explained(self) -> np.ndarray:
        """Quadratic forms with the inverse covariance, (Q, F)."""
        square = self.signal_F**2 * (each(self.p_QC, self.p_QC) @ self.s_CF)
        crossed_QF = each(self.p_QC, self.u_C) @ self.s_CF
        square += 2 * self.signal_F * self._share_QF * crossed_QF
        square += self._share_QF**2 * (self.u_C**2 @ self.s_CF)
        for i, (h_QF, v_CF) in enumerate(self.further):
            # Twice what comes before this column, and once the column with itself.
            before = replace(self, further=self.further[:i]).times(self.s_CF * v_CF)
            square += h_QF * (2 * before + h_QF * (self.s_CF * v_CF**2).sum(0))
        for onto_QF in self._onto_removed:
            square = square - onto_QF**2
        return square

    def with_left_out(self, left_QC: Matrix) -> np.ndarray:
        """Products through the inverse with one observed condition each, (Q, F)."""
        product = self.signal_F * (each(self.p_QC, left_QC) @ self.s_CF)
        product += self._share_QF * (each(left_QC, self.u_C) @ self.s_CF)
        for h_QF, v_CF in self.further:
            product += h_QF * (left_QC @ (self.s_CF * v_CF))
        for along_CF, onto_QF in zip(self.removed, self._onto_removed, strict=True):
            product = product - onto_QF * (left_QC @ along_CF)
        return product


def each(left: Matrix, right: np.ndarray | Matrix) -> Matrix:
    """Entry by entry products; of sparse matrices the result is sparse."""
    if sparse.issparse(left):
        return sparse.csr_matrix(left.multiply(right))
    return left * right
