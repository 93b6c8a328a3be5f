"""Training cells drawn again from their latents and encoded: what sampling does to the latent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from scipy import sparse

from celldit.calibration.new_cells.by_state import Moments
from celldit.calibration.new_cells.counts import held_total
from celldit.calibration.reference_controls import ReferenceControls
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.states import States
from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.latent.autoencoder import Autoencoder

Draw: TypeAlias = int | tuple[int, int]
"""Number of a draw, and of one of its parts; each has random numbers of its own."""

OffsetsOf: TypeAlias = Callable[[Sequence[Condition]], np.ndarray]
"""What brings conditions to their means: offsets of the log rates of G genes, (C, G)."""

MAX_ENTRIES = 3_000_000
MIN_CELLS = 300


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """Some training cells, about the means of their conditions and states.

    Attributes
    ----------
    cells, counts_NG, own_size_N, size_N
        The cells, their counts and size factors and, mixed within each state, the size factors that
        are drawn with: new cells get latent and size independently.
    moments, log_total_N
        Their log expression by state, and log of all counts per 10,000.
    away_NF, position_NF
        Latents from these means, and the means.
    offset_NG
        What brings the condition of each cell to its mean, added to log rates.
    n_states, row_N
        X, and the state of each cell.
    autoencoder, seed
        Encodes and decodes; seed of the draws.
    """

    cells: Cells
    counts_NG: np.ndarray
    own_size_N: np.ndarray
    size_N: np.ndarray
    moments: Moments
    log_total_N: np.ndarray
    away_NF: np.ndarray
    position_NF: np.ndarray
    offset_NG: np.ndarray
    n_states: int
    row_N: np.ndarray
    autoencoder: Autoencoder
    seed: int

    @classmethod
    def of(
        cls,
        cells: CellStore,
        table: ConditionTable,
        references: ReferenceControls,
        states: States,
        state_N: np.ndarray,
        seed: int,
        offsets_of: OffsetsOf,
    ) -> TrainingSample:
        """Take as many training cells as keep the work within seconds.

        Parameters
        ----------
        cells, table
            Training cells and their conditions.
        references
            The trained parts.
        states, state_N
            States that cells may be in, and that of each cell.
        seed
            Of the cells chosen where there are very many, and of the draws.
        offsets_of
            What brings conditions to their mean, which new cells get, too.
        """
        autoencoder = references.autoencoder
        rng = np.random.default_rng(seed)
        most = max(MIN_CELLS, MAX_ENTRIES // max(1, cells.n_genes))
        rows = np.sort(rng.permutation(cells.n_cells)[:most])
        some, index = cells.take(rows), table.index[rows]
        row_N = state_N[rows]
        means_CF = references.population.estimate(table.conditions).position.astype(np.float64)
        position_NF = states.positions(table.conditions, means_CF, index, row_N)
        away_NF = autoencoder.encode(some).flatten(1).double().numpy() - position_NF
        counts_NG = some.counts.toarray().astype(np.float32)
        used, place_N = np.unique(index, return_inverse=True)
        offset_CG = offsets_of([table.conditions[i] for i in used])
        moments = Moments.of(counts_NG, some.size_factors, row_N, len(states))
        # What a condition adds to sizes stays with its cells.
        factor_N = np.exp(references.sizes.shifts(table.conditions)[index]).astype(np.float32)
        size_N = some.size_factors / factor_N
        for x in range(len(states)):
            own = np.flatnonzero(row_N == x)
            size_N[own] = size_N[rng.permutation(own)]
        size_N = size_N * factor_N
        mixed = replace(some, size_factors=size_N)
        return cls(
            mixed,
            counts_NG,
            some.size_factors,
            size_N,
            moments,
            np.log((counts_NG.sum(1) + 1) * 1e4 / some.size_factors),
            away_NF,
            position_NF,
            offset_CG[place_N].astype(np.float32),
            len(states),
            row_N,
            autoencoder,
            seed,
        )

    def scatter(self, away_NF: np.ndarray) -> np.ndarray:
        """Covariance in each state, (X, F, F).

        Small states are drawn to the covariance within all as if that had been seen in 2 F cells.
        """
        n_dims = away_NF.shape[1]
        centred_NF = away_NF - self._own_means(away_NF)[self.row_N]
        freedom = max(len(centred_NF) - self.n_states, 1)
        pooled = centred_NF.T @ centred_NF / freedom + 1e-6 * np.eye(n_dims)
        scatter = []
        for x in range(self.n_states):
            own = centred_NF[self.row_N == x]
            strength = 2 * n_dims
            total = own.T @ own + strength * pooled
            scatter.append(total / (max(len(own) - 1, 0) + strength))
        return np.stack(scatter)

    def means(self, away_NF: np.ndarray) -> np.ndarray:
        """Mean in each state, drawn to that of all cells as if seen in 10, (X, F)."""
        n_X = np.bincount(self.row_N, minlength=self.n_states)[:, None]
        own = n_X * self._own_means(away_NF) + 10 * away_NF.mean(0)
        return np.asarray(own / (n_X + 10))

    def _own_means(self, away_NF: np.ndarray) -> np.ndarray:
        sums = np.zeros((self.n_states, away_NF.shape[1]))
        np.add.at(sums, self.row_N, away_NF)
        n_X = np.bincount(self.row_N, minlength=self.n_states)
        return np.asarray(sums / np.maximum(n_X, 1)[:, None])

    def log_rates(self, maps_XFF: np.ndarray, shifts_XF: np.ndarray) -> np.ndarray:
        """Log counts per 10,000 of the cells after map and shift, shape (N, G)."""
        z_NF = self.position_NF + shifts_XF[self.row_N]
        for x in range(self.n_states):
            own = self.row_N == x
            z_NF[own] += self.away_NF[own] @ maps_XFF[x].T
        with torch.no_grad():
            log_NG = self.autoencoder.decoder.log_rate(torch.from_numpy(z_NF).float()).numpy()
        return np.asarray(log_NG + self.offset_NG)

    def counts(
        self,
        rate_NG: np.ndarray,
        theta_XG: np.ndarray,
        total_X: np.ndarray,
        share: float,
        draw: Draw,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw counts from rates per 10,000, holding totals as `NewCounts` does.

        Returns
        -------
        counts, expected
            The counts, and the expectations with gamma noise that they were drawn from, (N, G).
        """
        rng = self._rng("counts", draw)
        theta_NG = theta_XG[self.row_N]
        rate_NG = rate_NG * rng.standard_gamma(theta_NG) / theta_NG
        rate_NG *= held_total(rate_NG, total_X[self.row_N], share)[:, None]
        expected_NG = rate_NG * (self.size_N / 1e4)[:, None]
        return rng.poisson(expected_NG), expected_NG

    def encoded(self, drawn_NG: np.ndarray) -> DrawnCells:
        """What is seen of the cells with counts that were drawn for them."""
        counts = sparse.csr_matrix(drawn_NG.astype(self.cells.counts.dtype))
        z_NKD = self.autoencoder.encode(replace(self.cells, counts=counts))
        away_NF = z_NKD.flatten(1).double().numpy() - self.position_NF
        moments = Moments.of(drawn_NG, self.size_N, self.row_N, self.n_states)
        return DrawnCells(away_NF, self.log_totals(drawn_NG), moments)

    def from_noise(self, factors_XFF: np.ndarray, draw: Draw) -> TrainingSample:
        """As many new cells in the same places, latents by factors of each state's scatter."""
        noise_NF = self._rng("latents", draw).standard_normal(self.away_NF.shape)
        away_NF = np.empty_like(noise_NF)
        for x in range(self.n_states):
            own = self.row_N == x
            away_NF[own] = noise_NF[own] @ factors_XFF[x].T
        return replace(self, away_NF=away_NF)

    def uniforms(self, draw: Draw) -> np.ndarray:
        """A uniform number for each count, (N, G)."""
        return self._rng("ranks", draw).random(self.counts_NG.shape)

    def _rng(self, what: str, draw: Draw) -> np.random.Generator:
        numbers = (draw,) if isinstance(draw, int) else draw
        return np.random.default_rng([self.seed, *numbers, *what.encode()])

    def log_totals(self, counts_NG: np.ndarray) -> np.ndarray:
        """Log of all counts per 10,000, at the mixed sizes, shape (N,)."""
        return np.asarray(np.log((counts_NG.sum(1) + 1) * 1e4 / self.size_N))

    def within(self, value_N: np.ndarray) -> tuple[np.ndarray, float]:
        """Mean in each state, drawn to all cells as if seen in 10, and variance within them."""
        n_X = np.bincount(self.row_N, minlength=self.n_states)
        sums_X = np.bincount(self.row_N, value_N, self.n_states)
        mean_X = (sums_X + 10 * value_N.mean()) / (n_X + 10)
        own_X = sums_X / np.maximum(n_X, 1)
        return mean_X, float(((value_N - own_X[self.row_N]) ** 2).mean())


@dataclass(frozen=True, eq=False)
class DrawnCells:
    """Cells drawn again: latents about their conditions' and states' means, totals, moments."""

    away_NF: np.ndarray
    log_total_N: np.ndarray
    moments: Moments
