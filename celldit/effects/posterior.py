"""What observed shifts say of others, in all rotated dimensions of the latent at once.

In dimension k the C observed shifts have the covariance

    S_k = λ_k K + μ_k a aᵀ + Σ_r h_kr h_krᵀ + N,

K from the kernel, a how much of a perturbation each condition has (:meth:`ConditionKernel.totals`),
μ_k the variance of the effect that all perturbations share there, N the noise, of which that of the
controls is shared by the conditions of a stratum (:mod:`celldit.effects.shared_noise`). The further
columns h are what else is known up to a factor only, such as the slope on the level of the controls
(:mod:`celldit.effects.contexts.level`); most data have none. With ``N = T Tᵀ``,
``T⁻¹ K T⁻ᵀ = U Λ Uᵀ`` and ``V = T⁻ᵀ U``, and every term but the first and the last being of rank
one (Sherman & Morrison 1950),

    S_k⁻¹ = V (diag(s_k) - w_k w_kᵀ - Σ_r w_kr w_krᵀ) Vᵀ,
    s_k = 1 / (λ_k Λ + 1),   w_k ∝ s_k ∘ (Vᵀ a),   w_kr ∝ (diag(s_k) - w_k w_kᵀ - ...) Vᵀ h_kr:

cubic in the number of conditions once, not once per dimension. Where K is blocks and a few
columns (:mod:`celldit.effects.sharing`), Λ and V are those of the blocks and of the noise that is
not shared, and V is sparse. Each column joins the further ones, those of K times √λ_k, and so does
that of each stratum's shared noise: cubic in the size of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from celldit.effects.queries import Matrix, Queries, each
from celldit.effects.shared_noise import SharedNoise


@dataclass(frozen=True, eq=False)
class Observed:
    """C observed shifts in F dimensions, and the inverse of their covariance.

    Attributes
    ----------
    shifts_CF, noise_C, totals_C
        The shifts, the diagonal of N, and a.
    kernel_CC
        K, or its blocks, sparse.
    signal_F, common_F
        λ and μ.
    further
        The further columns h, each of shape (C, F).
    columns_CR
        The columns of K beside blocks; None for none.
    shared
        The rest of N; None for nothing.
    """

    shifts_CF: np.ndarray
    noise_C: np.ndarray
    totals_C: np.ndarray
    kernel_CC: Matrix
    signal_F: np.ndarray
    common_F: np.ndarray
    further: Sequence[np.ndarray] = field(default_factory=tuple)
    columns_CR: np.ndarray | None = None
    shared: SharedNoise | None = None

    @cached_property
    def _own_C(self) -> np.ndarray:
        """Variance of the noise that is not shared."""
        return self.noise_C if self.shared is None else self.noise_C - self.shared.variance_C

    @cached_property
    def _spectrum(self) -> tuple[np.ndarray, Matrix]:
        """Λ and V."""
        own_C, shared = self._own_C, self.shared
        scale_C = 1 / np.sqrt(own_C)
        if sparse.issparse(self.kernel_CC):
            return _spectrum_of_blocks(self.kernel_CC, scale_C)
        white_CC = self.kernel_CC * scale_C[:, None] * scale_C
        if shared is not None:
            white_CC = shared.take_off(own_C, shared.take_off(own_C, white_CC).T)
        values_C, vectors_CC = np.linalg.eigh(white_CC)
        if shared is not None:
            vectors_CC = shared.take_off(own_C, vectors_CC)
        return values_C.clip(min=0), vectors_CC * scale_C[:, None]

    @cached_property
    def _turned_noise_CS(self) -> np.ndarray:
        """Vᵀ times the columns of shared noise, where V does not hold it."""
        if self.shared is None or not sparse.issparse(self.kernel_CC):
            return np.zeros((len(self.noise_C), 0))
        turned_CS: np.ndarray = self._spectrum[1].T @ self.shared.columns_CS
        return turned_CS

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
        """Vᵀ h of each further column, those of K first, those of shared noise last."""
        own = _times_root(self._turned_CR, self.signal_F)
        noise = _times_root(self._turned_noise_CS, np.ones_like(self.signal_F))
        return [*own, *(self._spectrum[1].T @ column_CF for column_CF in self.further), *noise]

    @property
    def _n_columns(self) -> int:
        return self._turned_CR.shape[1]

    @cached_property
    def _turned_CR(self) -> np.ndarray:
        """Vᵀ times the columns of K."""
        if self.columns_CR is None:
            return np.zeros((len(self.noise_C), 0))
        turned_CR: np.ndarray = self._spectrum[1].T @ self.columns_CR
        return turned_CR

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
        kernel_QC: Matrix,
        totals_Q: np.ndarray,
        further: Sequence[np.ndarray | None] = (),
        columns_QR: np.ndarray | None = None,
    ) -> np.ndarray:
        """Posterior mean of Q conditions alone, as in :meth:`predict`, (Q, F)."""
        return self._queries(kernel_QC, totals_Q, further, columns_QR).times(self._solved_CF)

    def predict(
        self,
        kernel_QC: Matrix,
        totals_Q: np.ndarray,
        variances_Q: np.ndarray,
        further: Sequence[np.ndarray | None] = (),
        columns_QR: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and variance of Q conditions.

        Parameters
        ----------
        kernel_QC
            K between them and the observed ones, or its blocks.
        totals_Q
            Their a.
        variances_Q
            K of each with itself.
        further
            Their further columns, each of shape (Q, F); None for zeros, and so are those left out.
        columns_QR
            Their columns of K, where those of the observed ones are apart.

        Returns
        -------
        mean, variance
            Each of shape (Q, F).
        """
        queries = self._queries(kernel_QC, totals_Q, further, columns_QR)
        return queries.times(self._solved_CF), queries.prior(
            variances_Q, self._n_columns
        ) - queries.explained()

    def with_shifts(
        self, shifts_CF: np.ndarray, signal_F: np.ndarray, common_F: np.ndarray
    ) -> Observed:
        """The same conditions seen in other dimensions, without a decomposition of its own.

        Further columns belong to the dimensions and are left behind.
        """
        other = replace(self, shifts_CF=shifts_CF, signal_F=signal_F, common_F=common_F, further=())
        other.__dict__["_spectrum"] = self._spectrum
        return other

    def log_likelihoods(self, signals_L: Sequence[float], commons_L: Sequence[float]) -> np.ndarray:
        """Log density of each dimension's shifts for L pairs of λ and μ, the same in all, (L, F).

        Up to a constant that depends on the noise alone, and without further columns.
        """
        values_C, vectors_CC = self._spectrum
        turned_CF = vectors_CC.T @ self.shifts_CF
        square_CF = turned_CF**2
        found = []
        for signal, common in zip(signals_L, commons_L, strict=True):
            shrink_C = 1 / (values_C * signal + 1)
            columns = np.sqrt(signal) * self._turned_CR, np.sqrt(common) * self._shared_C[:, None]
            beside_CR = np.concatenate([*columns, self._turned_noise_CS], axis=1)
            along_CR = shrink_C[:, None] * beside_CR
            root_RR = np.linalg.cholesky(np.eye(beside_CR.shape[1]) + beside_CR.T @ along_CR)
            onto_RF = np.linalg.solve(root_RR, along_CR.T @ turned_CF)
            quadratic_F = shrink_C @ square_CF - (onto_RF**2).sum(0)
            log_determinant = 2 * np.log(np.diag(root_RR)).sum() - np.log(shrink_C).sum()
            found.append(-0.5 * (quadratic_F + log_determinant))
        return np.array(found)

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of each effect without the shift that was observed, (C, F).

        With P = S⁻¹, the others say ``y_c - (P y)_c / P_cc`` of a shift. Of shared noise they say
        :meth:`noise`, and that is no part of the effect.
        """
        precision_CF = self._precision(slice(None))
        mean_CF = self.shifts_CF - self._weights_CF / precision_CF
        variance_CF = 1 / precision_CF - self.noise_C[:, None]
        if self.shared is None or not self.shared.number:
            return mean_CF, variance_CF
        v_C1 = self.shared.variance_C[:, None]
        noise_CF, explained_CF = np.zeros((2, *mean_CF.shape))
        for group in self.shared.number.values():
            own = np.flatnonzero(self.shared.group_C == group)
            v, onto_BF, within_F = v_C1[own], *self._of_group(group, own)
            noise_CF[own] = self._group_noise(group, own, onto_BF)
            of_own_BF = v * onto_BF * (2 - v * onto_BF) / precision_CF[own]
            explained_CF[own] = v**2 * within_F + of_own_BF
        return mean_CF - noise_CF, variance_CF + 2 * v_C1 - explained_CF

    @cached_property
    def _weights_CF(self) -> np.ndarray:
        """P y."""
        weights_CF: np.ndarray = self._spectrum[1] @ self._solved_CF
        return weights_CF

    def _of_group(self, group: int, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P 1_s in some rows, (B, F), and 1_sᵀ P 1_s, (F,), of a group s that shares noise."""
        assert self.shared is not None
        member_C = (self.shared.group_C == group).astype(np.float64)
        turned_CF = np.outer(self._spectrum[1].T @ member_C, np.ones(len(self.signal_F)))
        solved_CF = self._solve(turned_CF, self._removed_CF)
        return self._spectrum[1][rows_B] @ solved_CF, (turned_CF * solved_CF).sum(axis=0)

    def _group_noise(
        self, group: int, rows_B: np.ndarray | None = None, onto_BF: np.ndarray | float = 0.0
    ) -> np.ndarray:
        """Posterior mean of what a group shares, (F,), or (B, F) with B rows left out in turn."""
        assert self.shared is not None
        own = self.shared.group_C == group
        sum_F = self._weights_CF[own].sum(axis=0)
        if rows_B is not None:
            sum_F = sum_F - onto_BF * self._weights_CF[rows_B] / self._precision(rows_B)
        noise: np.ndarray = self.shared.variance_C[own][0] * sum_F
        return noise

    def noise(self, group_Q: np.ndarray, rows_Q: np.ndarray | None = None) -> np.ndarray:
        """Posterior mean of the noise that a further shift of each group would share, (Q, F).

        With `rows_Q` one observed shift is left out for each, that of its row.
        """
        found_QF = np.zeros((len(group_Q), len(self.signal_F)))
        for group in [] if self.shared is None else self.shared.number.values():
            at = np.flatnonzero(group_Q == group)
            if len(at) and rows_Q is None:
                found_QF[at] = self._group_noise(group)
            elif len(at) and rows_Q is not None:
                onto_BF, _ = self._of_group(group, rows_Q[at])
                found_QF[at] = self._group_noise(group, rows_Q[at], onto_BF)
        return found_QF

    def predict_without(
        self,
        kernel_QC: Matrix,
        totals_Q: np.ndarray,
        variances_Q: np.ndarray,
        rows_Q: np.ndarray,
        further: Sequence[np.ndarray | None] = (),
        columns_QR: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`predict`, had one observed condition been left out for each, that of its row.

        Removing one row and column of S from its inverse is an update of rank one, too.
        """
        queries = self._queries(kernel_QC, totals_Q, further, columns_QR)
        left_QC = self._spectrum[1][rows_Q]
        precision_QF = self._precision(rows_Q)
        shared_QF = queries.with_left_out(left_QC) / precision_QF
        mean = queries.times(self._solved_CF) - shared_QF * (left_QC @ self._solved_CF)
        explained = queries.explained() - shared_QF**2 * precision_QF
        return mean, queries.prior(variances_Q, self._n_columns) - explained

    def _precision(self, rows: np.ndarray | slice) -> np.ndarray:
        """Diagonal entries of the inverses, of shape (rows, F)."""
        left_RC = self._spectrum[1][rows]
        precision_RF = each(left_RC, left_RC) @ self._shrink_CF
        for along_CF in self._removed_CF:
            precision_RF = precision_RF - (left_RC @ along_CF) ** 2
        return precision_RF

    def _queries(
        self,
        kernel_QC: Matrix,
        totals_Q: np.ndarray,
        further: Sequence[np.ndarray | None],
        columns_QR: np.ndarray | None,
    ) -> Queries:
        own = self._further_CF[: self._n_columns]
        if columns_QR is None:
            columns_QR = np.zeros((len(totals_Q), len(own)))
        of_kernel = zip(_times_root(columns_QR, self.signal_F), own, strict=True)
        columns = zip(further, self._further_CF[self._n_columns :], strict=False)
        return Queries(
            kernel_QC @ self._spectrum[1],
            totals_Q,
            self._shared_C,
            self._shrink_CF,
            self._removed_CF,
            self.signal_F,
            self.common_F,
            [*of_kernel, *((h_QF, v_CF) for h_QF, v_CF in columns if h_QF is not None)],
        )


def _spectrum_of_blocks(
    kernel_CC: sparse.csr_matrix, scale_C: np.ndarray
) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Λ and V of a block-diagonal matrix, one block after the other."""
    n = len(scale_C)
    scaled_CC = sparse.diags(scale_C) @ kernel_CC @ sparse.diags(scale_C)
    _, block_C = connected_components(kernel_CC, directed=False)
    order = np.argsort(block_C, kind="stable")
    size_B = np.bincount(block_C)
    first_B = np.cumsum(size_B) - size_B
    scaled_CC = scaled_CC[order][:, order].tocsr()
    values_C, parts = np.empty(n), []
    for size in np.unique(size_B):
        # Blocks of one size are decomposed together.
        rows_BS = first_B[size_B == size][:, None] + np.arange(size)
        at = np.full(n, -1)
        at[rows_BS.ravel()] = np.arange(rows_BS.size)
        own = scaled_CC[rows_BS.ravel()].tocoo()
        blocks_BSS = np.zeros((len(rows_BS), size, size))
        blocks_BSS[own.row // size, own.row % size, at[own.col] % size] = own.data
        values_BS, vectors_BSS = np.linalg.eigh(blocks_BSS)
        values_C[rows_BS] = values_BS
        row_BSS = np.broadcast_to(order[rows_BS][:, :, None], vectors_BSS.shape)
        column_BSS = np.broadcast_to(rows_BS[:, None], vectors_BSS.shape)
        parts.append([x.ravel() for x in (vectors_BSS, row_BSS, column_BSS)])
    data, row, column = (np.concatenate(each) for each in zip(*parts, strict=True))
    vectors_CC = sparse.csr_matrix((data, (row, column)), (n, n))
    return values_C.clip(min=0), (sparse.diags(scale_C) @ vectors_CC).tocsr()


def _times_root(columns_CR: np.ndarray, signal_F: np.ndarray) -> list[np.ndarray]:
    """Columns of K in every dimension, each (C, F)."""
    return [column_C[:, None] * np.sqrt(signal_F) for column_C in columns_CR.T]
