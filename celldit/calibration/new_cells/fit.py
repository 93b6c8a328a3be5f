"""Find how new cells are drawn (see `model`) by drawing training cells again.

Rounds of drawing, encoding and correcting. In the first ones all is moved at once: maps and shifts
of the latents, totals, each gene's offset, and in each state what its offset and dispersion differ
in. Then the distribution of each gene's counts is measured over cells drawn from noise
(:mod:`celldit.calibration.new_cells.quantiles`), and since counts that are brought to it hold a
little less of what genes have in common, some further rounds with it move maps, shifts and totals.
What the flow from noise adds, where it is trusted, is not looked at.
"""

from __future__ import annotations

import numpy as np
import torch

from celldit.calibration.new_cells.by_state import towards
from celldit.calibration.new_cells.fit_quantiles import Drawn, fit_quantiles
from celldit.calibration.new_cells.library_sizes import SizeModel
from celldit.calibration.new_cells.model import NewCellModel
from celldit.calibration.new_cells.quantiles import CountQuantiles
from celldit.calibration.new_cells.sample import DrawnCells, TrainingSample
from celldit.conditions.states import States

N_ROUNDS, N_LAST_ROUNDS = 6, 2
# How often training cells are drawn from noise for the distributions of their counts.
N_DRAWS = 2
# Of the way that a round goes; later rounds, which only average over draws, go less.
STEP, WHOLE_STEPS = 0.7, 3
LEAST, MOST = 0.0, 1.0


@torch.no_grad()
def fit_new_cells(
    again: TrainingSample, states: States, sizes: SizeModel, size_factors: np.ndarray
) -> NewCellModel:
    """Find maps, shifts, offsets, dispersions and distributions.

    Parameters
    ----------
    again
        The training cells that are drawn again.
    states
        States that cells may be in.
    sizes, size_factors
        Library sizes of training cells, as a model and themselves.
    """
    search = MomentMatching(again, states.factors_SFF, size_factors)
    for round_ in range(N_ROUNDS):
        step = STEP * min(1.0, WHOLE_STEPS / max(round_, 1))
        search.update_rates()
        drawn = search.draw(round_)
        search.correct_latents(drawn, step)
        search.correct_genes(drawn, step)
    for round_ in range(N_ROUNDS, N_ROUNDS + N_LAST_ROUNDS):
        search.update_rates()
        search.measure_margins(round_)
        search.correct_latents(search.draw(round_), STEP)
    search.update_rates()
    search.measure_margins(N_ROUNDS + N_LAST_ROUNDS)
    return search.found(sizes)


class MomentMatching:
    """What is being found, under the names that it has in the result.

    Parameters
    ----------
    again
        The training cells.
    noise_factors_XFF
        Cholesky factors of the scatter that new cells start from in each state.
    sizes
        Size factors of all training cells, of which `again` may have some.
    """

    def __init__(
        self,
        again: TrainingSample,
        noise_factors_XFF: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        n_states, n_dims, n_genes = again.n_states, again.away_NF.shape[1], again.counts_NG.shape[1]
        self.again, self.noise_factors_XFF, self.sizes = again, noise_factors_XFF, sizes
        self.factors_XFF = np.linalg.cholesky(again.scatter(again.away_NF))
        self.mean_XF = again.means(again.away_NF)
        self.measured_X, self.measured_variance = again.within(again.log_total_N)
        decoder = again.autoencoder.decoder
        self.theta_G = decoder.head.theta_G.double().numpy()
        self.ceiling_G = decoder.log_ceiling.double().numpy()
        self.shares_XFF = np.tile(np.eye(n_dims), (n_states, 1, 1))
        self.shifts_XF = np.zeros((n_states, n_dims))
        self.offset_G = np.zeros(n_genes)
        self.offset_XG, self.log_factor_XG = np.zeros((2, n_states, n_genes), dtype=np.float32)
        self.total_X, self.share = self.measured_X.copy(), 1.0
        self.count_quantiles = CountQuantiles.none()

    def update_rates(self) -> None:
        """Maps and rates that follow from all else."""
        pairs = zip(self.factors_XFF, self.shares_XFF, strict=True)
        self.maps_XFF = np.stack([_map(factor_FF, share_FF) for factor_FF, share_FF in pairs])
        self.rate_NG = self.rates(self.again)

    def rates(self, cells: TrainingSample) -> np.ndarray:
        """Expected counts per 10,000 of cells, (N, G)."""
        log_NG = cells.log_rates(self.maps_XFF, self.shifts_XF)
        log_NG = self.offset_G + (log_NG + self.offset_XG[cells.row_N])
        return np.asarray(np.exp(np.minimum(log_NG, self.ceiling_G)))

    @property
    def theta_XG(self) -> np.ndarray:
        """Inverse dispersions by state."""
        return np.asarray(self.theta_G * np.exp(self.log_factor_XG))

    def draw(self, round_: int) -> DrawnCells:
        """Draw the training cells again, and encode them."""
        totals = self.total_X, self.share
        counts, expected = self.again.counts(self.rate_NG, self.theta_XG, *totals, round_)
        group_N = self.count_quantiles.groups(self.again.size_N, self.again.row_N)
        if (group_N >= 0).any():
            uniform = self.again.uniforms(round_)
            counts = self.count_quantiles.moved(counts, expected, group_N, uniform)
        return self.again.encoded(counts)

    def correct_latents(self, drawn: DrawnCells, step: float) -> None:
        """Move maps, shifts and totals by what scatter, means and totals of drawn cells lack."""
        scatter_XFF = self.again.scatter(drawn.away_NF)
        self.shifts_XF += step * (self.mean_XF - self.again.means(drawn.away_NF))
        for x, (factor, now) in enumerate(zip(self.factors_XFF, scatter_XFF, strict=True)):
            relative = np.linalg.solve(factor, np.linalg.solve(factor, now).T)
            missing = np.eye(len(relative)) - relative
            self.shares_XFF[x] = _clipped(self.shares_XFF[x] + step * missing)
        drawn_X, drawn_variance = self.again.within(drawn.log_total_N)
        self.total_X += step * (self.measured_X - drawn_X)
        # One cell per state says nothing about how totals vary.
        if drawn_variance > 0:
            ratio = self.measured_variance / drawn_variance
            self.share = float(np.clip(self.share * ratio ** (step / 2), 0, 1))

    def correct_genes(self, drawn: DrawnCells, step: float) -> None:
        """Move offsets and dispersions by what log expression of drawn cells lacks."""
        measured = self.again.moments
        # How log expression answers to a log rate: little where a gene is hardly seen.
        answer_G = 1 - np.exp(-measured.mean_G.clip(0.02))
        missing_G = measured.mean_G - drawn.moments.mean_G
        self.offset_G += (step * missing_G / answer_G).clip(-1, 1)
        own = self.offset_XG, self.log_factor_XG
        self.offset_XG, self.log_factor_XG = towards(*own, measured, drawn.moments, step)

    def measure_margins(self, round_: int) -> None:
        """Compare counts of cells that are drawn from noise with those measured."""
        drawn = []
        for i in range(N_DRAWS):
            new = self.again.from_noise(self.noise_factors_XFF, (round_, i))
            totals = self.total_X, self.share
            drawn.append(new.counts(self.rates(new), self.theta_XG, *totals, (round_, i)))
        counts, expected = (np.concatenate(each) for each in zip(*drawn, strict=True))
        self.count_quantiles = fit_quantiles(
            self.again.counts_NG,
            self.again.own_size_N,
            Drawn(counts, expected, np.tile(self.again.size_N, N_DRAWS)),
            self.sizes,
            self.again.n_states,
        )

    def found(self, sizes: SizeModel) -> NewCellModel:
        """The result."""
        return NewCellModel(
            self.maps_XFF,
            self.shifts_XF,
            self.offset_G,
            self.theta_G,
            self.total_X,
            self.offset_XG,
            self.log_factor_XG,
            self.share,
            sizes,
            self.count_quantiles,
        )


def _map(factor_FF: np.ndarray, share_FF: np.ndarray) -> np.ndarray:
    """The linear map that takes scatter L Lᵀ to L share Lᵀ and turns as little as it can."""
    values, vectors = np.linalg.eigh(share_FF)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return np.asarray(factor_FF @ root @ np.linalg.inv(factor_FF))


def _clipped(share_FF: np.ndarray) -> np.ndarray:
    """The nearest share of the scatter that is one: symmetric, within bounds."""
    values, vectors = np.linalg.eigh((share_FF + share_FF.T) / 2)
    return np.asarray((vectors * np.clip(values, LEAST, MOST)) @ vectors.T)
