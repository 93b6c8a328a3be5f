"""Draw new cells so that, encoded again, they look like measured ones.

The latent of a measured cell holds its counting noise: it is a function of its counts. A cell that
is drawn from such a latent gets that noise a second time, so drawn cells scatter too widely, along
every latent direction, and so do their totals. What has to be decoded is the latent without the
noise, which nobody has measured; but its scatter is known, because adding the noise must give the
scatter that was measured (deconvolution by moments):

    z' = position + S (z - position) + shift        S, shift such that cov, mean(encode(draw(z')))
                                                    are those of encode(measured cells)

S and the shift are found for each state (:mod:`celldit.conditions.states`) by drawing training
cells, encoding what was drawn and correcting, a few rounds. In the same rounds each gene gets an
offset of its log rate and a dispersion, with which its mean log expression and its share of zeros
over drawn cells are those measured, and in each state more of both, with which mean and variance of
its log expression are (:mod:`celldit.samplers.by_state`); and the totals of the cells are held to
the scatter that measured totals have (:mod:`celldit.samplers.new_counts`).
Counterfactuals, which edit measured cells, have no use for this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from celldit.conditions import ConditionTable
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.data.store import CellStore
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.heads import NegativeBinomialHead, ZeroInflatedHead
from celldit.latent.likelihoods import CountDistribution
from celldit.samplers.by_state import ByState
from celldit.samplers.dispersion import theta_of_zeros
from celldit.samplers.new_counts import NewCounts, held_total
from celldit.samplers.redraw import Redraw
from celldit.samplers.sizes import SizeModel

N_ROUNDS = 10
# Of the way that a round goes; later rounds, which only average over draws, go less.
STEP, WHOLE_STEPS = 0.7, 3
LEAST, MOST = 0.0, 1.0


@dataclass(frozen=True, eq=False)
class Towards:
    """The same B new cells at another time, and how far they are on the way there.

    Attributes
    ----------
    z_BKD
        Latents to decode there.
    row_B
        States there.
    share_B
        How much of the way lies behind each; 0 leaves it where it is.
    """

    z_BKD: Tensor
    row_B: np.ndarray
    share_B: Tensor

    def latents(self, z_BKD: Tensor) -> Tensor:
        """Latents on the way from those here, (B, K, D)."""
        return torch.lerp(z_BKD, self.z_BKD, self.share_B[:, None, None])


@dataclass(frozen=True, eq=False)
class Synthesis:
    """What turns latents of the flow into latents to decode, and expectations into counts.

    Attributes
    ----------
    maps_XFF, shifts_XF
        S and shift of each of X states.
    offset_G, theta_G
        What is added to each gene's log rate, and its inverse dispersion. Without entries the
        decoder's own distribution is drawn from.
    total_X, share
        Usual log total of rates per 10,000 in each state, and the share of a cell's deviation
        from it that stays (see :class:`~celldit.samplers.new_counts.NewCounts`).
    sizes
        Library sizes of each state.
    by_state
        What is added in each state; nothing in models that know no such thing.
    """

    maps_XFF: np.ndarray
    shifts_XF: np.ndarray
    offset_G: np.ndarray
    theta_G: np.ndarray
    total_X: np.ndarray
    share: float
    sizes: SizeModel
    by_state: ByState

    def latents(self, z_BKD: Tensor, positions_BKD: Tensor, row_B: np.ndarray) -> Tensor:
        """Latents to decode, from those of the flow, and the means and numbers of their states."""
        at = torch.from_numpy(row_B)
        away_BF1 = (z_BKD - positions_BKD).flatten(1).double()[:, :, None]
        # One product per cell: its bytes must not depend on who else is in the batch.
        moved_BF = (torch.from_numpy(self.maps_XFF)[at] @ away_BF1)[:, :, 0]
        moved_BF = moved_BF + torch.from_numpy(self.shifts_XF)[at]
        return positions_BKD + moved_BF.view(z_BKD.shape).to(z_BKD.dtype)

    def counts(
        self,
        autoencoder: Autoencoder,
        z_BKD: Tensor,
        size_B: Tensor,
        row_B: np.ndarray,
        towards: Towards | None = None,
    ) -> CountDistribution:
        """Distribution of the counts of new cells, from their latents, sizes and states.

        Cells on the way towards another time have expected counts on the straight line between
        those at both ends, and scatter in between. Where the decoder's own distribution is drawn
        from, it is their latents that lie on a line.
        """
        if len(self.theta_G) == 0:
            z_BKD = z_BKD if towards is None else towards.latents(z_BKD)
            return autoencoder.decode(z_BKD, size_B)
        model = self._counts(autoencoder, z_BKD, size_B, row_B)
        if towards is None:
            return model
        other = self._counts(autoencoder, towards.z_BKD, size_B, towards.row_B)
        return model.towards(other, towards.share_B)

    def _counts(
        self, autoencoder: Autoencoder, z_BKD: Tensor, size_B: Tensor, row_B: np.ndarray
    ) -> NewCounts:
        mean_BG = self._expected(autoencoder, z_BKD, size_B, row_B)
        theta_BG = self.theta_G * np.exp(self.by_state.log_factor_XG[row_B])
        theta = torch.from_numpy(theta_BG).to(mean_BG.dtype)
        total_B = torch.from_numpy(self.total_X[row_B])
        return NewCounts.held(mean_BG, theta, size_B, total_B, self.share)

    def _expected(
        self, autoencoder: Autoencoder, z_BKD: Tensor, size_B: Tensor, row_B: np.ndarray
    ) -> Tensor:
        """Expected counts of independent genes, (B, G)."""
        log_rate_BG = autoencoder.decoder.log_rate(z_BKD.flatten(1))
        offset_BG = self.offset_G + self.by_state.offset_XG[row_B]
        log_rate_BG = log_rate_BG + torch.from_numpy(offset_BG).to(log_rate_BG.dtype)
        log_rate_BG = torch.minimum(log_rate_BG, autoencoder.decoder.log_ceiling)
        return log_rate_BG.exp() * (size_B[:, None] / 1e4)

    @classmethod
    def neutral(cls, n_states: int, sizes: SizeModel, n_dims: int) -> Synthesis:
        """Latents and counts as flow and decoder have them."""
        maps_XFF, none = np.tile(np.eye(n_dims), (n_states, 1, 1)), np.zeros(0)
        shifts_XF = np.zeros((n_states, n_dims))
        alike = ByState.none(n_states, 0)
        return cls(maps_XFF, shifts_XF, none, none, np.zeros(n_states), 1.0, sizes, alike)

    def with_earlier(self, earlier: Synthesis, kept: np.ndarray) -> Synthesis:
        """Together with some states of an earlier training; genes are as in this one."""
        return replace(
            self,
            maps_XFF=np.concatenate([self.maps_XFF, earlier.maps_XFF[kept]]),
            shifts_XF=np.concatenate([self.shifts_XF, earlier.shifts_XF[kept]]),
            total_X=np.concatenate([self.total_X, earlier.total_X[kept]]),
            sizes=self.sizes.with_earlier(earlier.sizes, kept),
            by_state=self.by_state.with_none(len(kept)),
        )

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {"share": self.share}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        own = {name: getattr(self, name) for name in ARRAYS}
        sizes = {f"sizes.{name}": array for name, array in self.sizes.arrays().items()}
        return {**own, **sizes, **self.by_state.arrays()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Synthesis:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote."""
        own = {name: arrays[name] for name in ARRAYS}
        start = "sizes."
        of_sizes = {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
        shape = len(own["maps_XFF"]), len(own["offset_G"])
        by_state = ByState.from_arrays(arrays, shape)
        return cls(
            share=float(config["share"]), sizes=SizeModel(**of_sizes), by_state=by_state, **own
        )


ARRAYS = ("maps_XFF", "shifts_XF", "offset_G", "theta_G", "total_X")


@torch.no_grad()
def fit_synthesis(
    cells: CellStore,
    table: ConditionTable,
    population: Population,
    autoencoder: Autoencoder,
    states: States,
    state_N: np.ndarray,
    seed: int,
) -> Synthesis:
    """Find maps, shifts, scales and dispersions by drawing training cells again.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    population, autoencoder
        The trained parts.
    states, state_N
        States that cells may be in, and that of each cell.
    seed
        Of the cells chosen where there are very many, and of the draws.
    """
    n_states = len(states)
    sizes = SizeModel.fit(cells.size_factors, state_N, n_states)
    n_dims = autoencoder.n_tokens * autoencoder.token_dim
    head = autoencoder.decoder.head
    if not isinstance(head, NegativeBinomialHead) or isinstance(head, ZeroInflatedHead):
        return Synthesis.neutral(n_states, sizes, n_dims)
    again = Redraw.of(cells, table, population, autoencoder, states, state_N, seed)
    measured_XFF = again.scatter(again.away_NF)
    factors_XFF = np.linalg.cholesky(measured_XFF)
    shares_XFF = np.broadcast_to(np.eye(n_dims), measured_XFF.shape).copy()
    mean_XF = again.means(again.away_NF)
    shifts_XF = np.zeros((n_states, n_dims))
    offset_G, by_state = np.zeros(cells.n_genes), ByState.none(n_states, cells.n_genes)
    start_G = head.theta_G.double().numpy()
    ceiling_G = autoencoder.decoder.log_ceiling.double().numpy()
    size_N1 = (again.size_N / 1e4)[:, None]
    measured_X, measured_variance = again.within(again.log_total_N)
    total_X, share = measured_X.copy(), 1.0
    # How log expression answers to a log rate: little where a gene is hardly seen.
    answer_G = 1 - np.exp(-again.moments.mean_G.clip(0.02))
    for round_ in range(N_ROUNDS + 1):
        maps_XFF = np.stack([_map(f, s) for f, s in zip(factors_XFF, shares_XFF, strict=True)])
        log_NG = again.log_rates(maps_XFF, shifts_XF) + by_state.offset_XG[again.row_N]
        rate_NG = np.exp(np.minimum(offset_G + log_NG, ceiling_G))
        held_NG = rate_NG * held_total(rate_NG, total_X[again.row_N], share)[:, None]
        theta_G = theta_of_zeros(held_NG * size_N1, again.counts_NG, start_G=start_G)
        if round_ == N_ROUNDS:
            break
        step = STEP * min(1.0, WHOLE_STEPS / max(round_, 1))
        theta_XG = theta_G * np.exp(by_state.log_factor_XG)
        drawn = again.draw(rate_NG, theta_XG, total_X, share, round_)
        scatter_XFF = again.scatter(drawn.away_NF)
        shifts_XF += step * (mean_XF - again.means(drawn.away_NF))
        for x, (factor, now) in enumerate(zip(factors_XFF, scatter_XFF, strict=True)):
            relative = np.linalg.solve(factor, np.linalg.solve(factor, now).T)
            shares_XFF[x] = _clipped(shares_XFF[x] + step * (np.eye(n_dims) - relative))
        drawn_X, drawn_variance = again.within(drawn.log_total_N)
        total_X += step * (measured_X - drawn_X)
        # One cell per state says nothing about how totals vary.
        if drawn_variance > 0:
            ratio = measured_variance / drawn_variance
            share = float(np.clip(share * ratio ** (step / 2), 0, 1))
        missing_G = again.moments.mean_G - drawn.moments.mean_G
        offset_G += (step * missing_G / answer_G).clip(-1, 1)
        by_state = by_state.towards(again.moments, drawn.moments, step)
    genes = offset_G, theta_G
    return Synthesis(maps_XFF, shifts_XF, *genes, total_X, share, sizes, by_state)


def _map(factor_FF: np.ndarray, share_FF: np.ndarray) -> np.ndarray:
    """The linear map that takes scatter L Lᵀ to L share Lᵀ and turns as little as it can."""
    values, vectors = np.linalg.eigh(share_FF)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return np.asarray(factor_FF @ root @ np.linalg.inv(factor_FF))


def _clipped(share_FF: np.ndarray) -> np.ndarray:
    """The nearest share of the scatter that is one: symmetric, within bounds."""
    values, vectors = np.linalg.eigh((share_FF + share_FF.T) / 2)
    return np.asarray((vectors * np.clip(values, LEAST, MOST)) @ vectors.T)
