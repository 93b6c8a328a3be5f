"""What observed shifts say of others, in all rotated dimensions of the latent at once.

In dimension k the C observed shifts have the covariance

    S_k = λ_k K + μ_k a aᵀ + Σ_r h_kr h_krᵀ + N,

K from the kernel, a how much of a perturbation each condition has (:meth:`ConditionKernel.totals`),
μ_k the variance of the effect that all perturbations share there, N the diagonal noise. The further
columns h are what else is known up to a factor only, such as the slope on the level of the controls
(:mod:`celldit.effects.level`); most data have none. With ``N^-1/2 K N^-1/2 = U Λ Uᵀ`` and
``V = N^-1/2 U``, and every term but the first and the last being of rank one
(Sherman & Morrison 1950),

    S_k⁻¹ = V (diag(s_k) - w_k w_kᵀ - Σ_r w_kr w_krᵀ) Vᵀ,
    s_k = 1 / (λ_k Λ + 1),   w_k ∝ s_k ∘ (Vᵀ a),   w_kr ∝ (diag(s_k) - w_k w_kᵀ - ...) Vᵀ h_kr:

cubic in the number of conditions once, not once per dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Observed:
    """C observed shifts in F dimensions, and the inverse of their covariance.

    Attributes
    ----------
    shifts_CF, noise_C, totals_C
        The shifts, the variance of their noise, and a.
    kernel_CC
        K.
    signal_F, common_F
        λ and μ.
    further
        The further columns h, each of shape (C, F).
    """

    shifts_CF: np.ndarray
    noise_C: np.ndarray
    totals_C: np.ndarray
    kernel_CC: np.ndarray
    signal_F: np.ndarray
    common_F: np.ndarray
    further: Sequence[np.ndarray] = field(default_factory=tuple)

    @cached_property
    def _spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Λ and V."""
        scale_C = 1 / np.sqrt(self.noise_C)
        values_C, vectors_CC = np.linalg.eigh(self.kernel_CC * scale_C[:, None] * scale_C)
        return values_C.clip(min=0), vectors_CC * scale_C[:, None]

    @cached_property
    def _shrink_CF(self) -> np.ndarray:
        """The columns s_k."""
        return 1 / (self._spectrum[0][:, None] * self.signal_F + 1)

    @cached_property
    def _shared_C(self) -> np.ndarray:
        """Vᵀ a."""
        shared: np.ndarray = self._spectrum[1].T @ self.totals_C
        return shared

    @cached_property
    def _along_CF(self) -> np.ndarray:
        """The columns w_k."""
        along_CF = self._shrink_CF * self._shared_C[:, None]
        norm_F = self._shared_C @ along_CF
        return along_CF * np.sqrt(self.common_F / (1 + self.common_F * norm_F))

    @cached_property
    def _further_CF(self) -> list[np.ndarray]:
        """Vᵀ h of each further column."""
        return [self._spectrum[1].T @ column_CF for column_CF in self.further]

    @cached_property
    def _removed_CF(self) -> list[np.ndarray]:
        """All w, each (C, F)."""
        removed = [self._along_CF]
        for column_CF in self._further_CF:
            solved_CF = self._solve(column_CF, removed)
            removed.append(solved_CF / np.sqrt(1 + (column_CF * solved_CF).sum(0)))
        return removed

    def _solve(self, turned_CF: np.ndarray, removed: Sequence[np.ndarray]) -> np.ndarray:
        """The inverse with some w taken off, times one vector per dimension."""
        solved_CF = self._shrink_CF * turned_CF
        for along_CF in removed:
            solved_CF = solved_CF - along_CF * (along_CF * turned_CF).sum(0)
        return solved_CF

    @cached_property
    def _solved_CF(self) -> np.ndarray:
        """The columns Vᵀ⁻¹ S_k⁻¹ y_k: what the shifts weigh in the coordinates of V."""
        return self._solve(self._spectrum[1].T @ self.shifts_CF, self._removed_CF)

    def mean(
        self,
        kernel_QC: np.ndarray,
        totals_Q: np.ndarray,
        further: Sequence[np.ndarray | None] = (),
    ) -> np.ndarray:
        """Posterior mean of Q conditions alone, as in :meth:`predict`, (Q, F)."""
        return self._asked(kernel_QC, totals_Q, further).times(self._solved_CF)

    def predict(
        self,
        kernel_QC: np.ndarray,
        totals_Q: np.ndarray,
        variances_Q: np.ndarray,
        further: Sequence[np.ndarray | None] = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and variance of Q conditions.

        Parameters
        ----------
        kernel_QC
            K between them and the observed ones.
        totals_Q
            Their a.
        variances_Q
            K of each with itself.
        further
            Their further columns, each of shape (Q, F); None for zeros, and so are those left out.

        Returns
        -------
        mean, variance
            Each of shape (Q, F).
        """
        asked = self._asked(kernel_QC, totals_Q, further)
        return asked.times(self._solved_CF), asked.prior(variances_Q) - asked.explained()

    def with_shifts(
        self, shifts_CF: np.ndarray, signal_F: np.ndarray, common_F: np.ndarray
    ) -> Observed:
        """The same conditions seen in other dimensions, without a decomposition of its own.

        Further columns belong to the dimensions and are left behind.
        """
        other = Observed(shifts_CF, self.noise_C, self.totals_C, self.kernel_CC, signal_F, common_F)
        other.__dict__["_spectrum"] = self._spectrum
        return other

    def log_likelihoods(self, signals_L: Sequence[float], commons_L: Sequence[float]) -> np.ndarray:
        """Log density of each dimension's shifts had all of them the same λ and μ, shape (L, F).

        Up to a constant that depends on the noise alone, and without further columns.

        Parameters
        ----------
        signals_L, commons_L
            L pairs of λ and μ.
        """
        values_C, vectors_CC = self._spectrum
        turned_CF = vectors_CC.T @ self.shifts_CF
        square_CF = turned_CF**2
        found = []
        for signal, common in zip(signals_L, commons_L, strict=True):
            shrink_C = 1 / (values_C * signal + 1)
            along_C = shrink_C * self._shared_C
            inflation = 1 + common * (self._shared_C @ along_C)
            quadratic_F = shrink_C @ square_CF - common / inflation * (along_C @ turned_CF) ** 2
            log_determinant = np.log(inflation) - np.log(shrink_C).sum()
            found.append(-0.5 * (quadratic_F + log_determinant))
        return np.array(found)

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of each observed shift without itself, of shape (C, F)."""
        precision_CF = self._precision(slice(None))
        mean_CF = self.shifts_CF - self._spectrum[1] @ self._solved_CF / precision_CF
        return mean_CF, 1 / precision_CF - self.noise_C[:, None]

    def predict_without(
        self,
        kernel_QC: np.ndarray,
        totals_Q: np.ndarray,
        variances_Q: np.ndarray,
        rows_Q: np.ndarray,
        further: Sequence[np.ndarray | None] = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`predict`, had one observed condition been left out for each, that of its row.

        Removing one row and column of S from its inverse is an update of rank one, too.
        """
        asked = self._asked(kernel_QC, totals_Q, further)
        left_QC = self._spectrum[1][rows_Q]
        precision_QF = self._precision(rows_Q)
        shared_QF = asked.with_left_out(left_QC) / precision_QF
        mean = asked.times(self._solved_CF) - shared_QF * (left_QC @ self._solved_CF)
        explained = asked.explained() - shared_QF**2 * precision_QF
        return mean, asked.prior(variances_Q) - explained

    def _precision(self, rows: np.ndarray | slice) -> np.ndarray:
        """Diagonal entries of the inverses, of shape (rows, F)."""
        left_RC = self._spectrum[1][rows]
        precision_RF = left_RC**2 @ self._shrink_CF
        for along_CF in self._removed_CF:
            precision_RF = precision_RF - (left_RC @ along_CF) ** 2
        return precision_RF

    def _asked(
        self,
        kernel_QC: np.ndarray,
        totals_Q: np.ndarray,
        further: Sequence[np.ndarray | None] = (),
    ) -> _Asked:
        columns = zip(further, self._further_CF, strict=False)
        return _Asked(
            kernel_QC @ self._spectrum[1],
            totals_Q,
            self._shared_C,
            self._shrink_CF,
            self._removed_CF,
            self.signal_F,
            self.common_F,
            [(h_QF, v_CF) for h_QF, v_CF in columns if h_QF is not None],
        )


@dataclass(frozen=True, eq=False)
class _Asked:
    """Covariances of Q conditions with the observed ones, x = λ p + μ a u + Σ h v, in V."""

    p_QC: np.ndarray
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

    def prior(self, variances_Q: np.ndarray) -> np.ndarray:
        """Variances before anything is observed, (Q, F)."""
        variance = self.signal_F * variances_Q[:, None] + self._share_QF * self.a_Q[:, None]
        for h_QF, _ in self.further:
            variance = variance + h_QF**2
        return variance

    @cached_property
    def _onto_removed(self) -> list[np.ndarray]:
        return [self.times(along_CF) for along_CF in self.removed]

    def explained(self) -> np.ndarray:
        """Quadratic forms with the inverse covariance, (Q, F)."""
        square = self.signal_F**2 * (self.p_QC**2 @ self.s_CF)
        square += 2 * self.signal_F * self._share_QF * ((self.p_QC * self.u_C) @ self.s_CF)
        square += self._share_QF**2 * (self.u_C**2 @ self.s_CF)
        for i, (h_QF, v_CF) in enumerate(self.further):
            # Twice what comes before this column, and once the column with itself.
            before = replace(self, further=self.further[:i]).times(self.s_CF * v_CF)
            square += h_QF * (2 * before + h_QF * (self.s_CF * v_CF**2).sum(0))
        for onto_QF in self._onto_removed:
            square = square - onto_QF**2
        return square

    def with_left_out(self, left_QC: np.ndarray) -> np.ndarray:
        """Products through the inverse with one observed condition each, (Q, F)."""
        product = self.signal_F * ((self.p_QC * left_QC) @ self.s_CF)
        product += self._share_QF * ((left_QC * self.u_C) @ self.s_CF)
        for h_QF, v_CF in self.further:
            product += h_QF * (left_QC @ (self.s_CF * v_CF))
        for along_CF, onto_QF in zip(self.removed, self._onto_removed, strict=True):
            product = product - onto_QF * (left_QC @ along_CF)
        return product
