"""The noise source of a condition and state: a Gaussian about where its cells lie.

``x0 = position + factor · ε``; what states there are, where they lie and how they scatter is said
by :class:`celldit.conditions.states.States`. The map between ε and x0 is linear and invertible,
which is what inversion needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from celldit.conditions import Condition
from celldit.conditions.embedding import ConditionEmbedding
from celldit.conditions.states import States
from celldit.flow import CellNoise, EulerMaruyama, GaussianSource, cell_uniform
from celldit.flow.anchored import FlowCondition
from celldit.random import SDE_STREAM


@dataclass(frozen=True, eq=False)
class NoiseSource(GaussianSource):
    """Gaussian sources of B cells, each with the mean (B, K, D) and scatter of its condition.

    Cholesky factors of the scatter over the F = K·D flattened dimensions are float64.
    """

    factors_BFF: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))

    def scatter(self, noise: Tensor) -> Tensor:
        """Give standard normal noise (B, K, D) the scatter of the conditions."""
        # One product per cell: its bytes must not depend on who else is in the batch.
        x_BF1 = self.factors_BFF @ noise.flatten(1).double()[:, :, None]
        return x_BF1.view(noise.shape).to(noise.dtype)

    def to(self, device: torch.device) -> NoiseSource:
        """Move to a device."""
        return NoiseSource(
            position=torch.as_tensor(self.position).to(device),
            factors_BFF=self.factors_BFF.to(device),
        )

    def noise_of(self, x0_BKD: Tensor) -> Tensor:
        """The noise that leads to given start points, shape (B, K, D)."""
        offset_BF1 = (x0_BKD - self.position).flatten(1).double()[:, :, None]
        noise_BF1 = torch.linalg.solve_triangular(self.factors_BFF, offset_BF1, upper=False)
        return noise_BF1.view(x0_BKD.shape).to(x0_BKD.dtype)


class NoiseEnd(NamedTuple):
    """Where cells are on their way through noise: in a condition, beside its noise."""

    conditioning: FlowCondition  # what the network knows of the condition, from noise
    source: NoiseSource  # where its flow starts


@dataclass(frozen=True, eq=False)
class NoiseSources:
    """The noise sources of Q conditions, looked up once."""

    states: States
    conditions: Sequence[Condition]
    positions_QKD: Tensor  # means of the conditions
    places_QF: np.ndarray  # the same without the offsets of their states, float64

    @classmethod
    def of(
        cls, states: States, conditions: Sequence[Condition], positions_QKD: Tensor
    ) -> NoiseSources:
        """Look up the states of Q conditions whose means are known."""
        means_QF = positions_QKD.flatten(1).double().numpy()
        centres_QF = np.stack([states.centre(condition) for condition in conditions])
        return cls(states, conditions, positions_QKD, means_QF - centres_QF)

    def draw(
        self, row_B: np.ndarray, uniform_B: np.ndarray, log_weight_BS: np.ndarray | None = None
    ) -> np.ndarray:
        """States of B cells in the conditions `row_B`, from uniform numbers, int64.

        A log weight of each state for each cell is what else is known of the cell.
        """
        state_B = np.empty(len(row_B), dtype=np.int64)
        for q in np.unique(row_B):
            own = np.flatnonzero(row_B == q)
            rows, share = self.states.options(self.conditions[q])
            share_bM = np.tile(share, (len(own), 1))
            if log_weight_BS is not None and len(rows) > 1:
                log_bM = np.log(share) + log_weight_BS[own][:, rows]
                share_bM = np.exp(log_bM - np.logaddexp.reduce(log_bM, axis=1, keepdims=True))
            within = np.cumsum(share_bM, axis=1) < uniform_B[own, None]
            state_B[own] = rows[within.sum(1).clip(max=len(rows) - 1)]
        return state_B

    def nearest(self, row_B: np.ndarray, z_BKD: Tensor) -> np.ndarray:
        """The likeliest state of B cells in the conditions `row_B`, int64."""
        z_BF = z_BKD.flatten(1).double().numpy()
        means_QF = self.positions_QKD.flatten(1).double().numpy()
        state_B = np.empty(len(row_B), dtype=np.int64)
        for q in np.unique(row_B):
            own = np.flatnonzero(row_B == q)
            rows, share_bM = self.states.likely(self.conditions[q], means_QF[q], z_BF[own])
            state_B[own] = rows[share_bM.argmax(1)]
        return state_B

    def end(
        self, embedding: ConditionEmbedding, row_B: np.ndarray, state_B: np.ndarray
    ) -> NoiseEnd:
        """The source of each of B cells in the conditions `row_B` and the states `state_B`.

        With it what the network knows of cells that start there.
        """
        position_BF = self.places_QF[row_B] + self.states.offsets_SF[state_B]
        shape = -1, *self.positions_QKD.shape[1:]
        position_BKD = torch.from_numpy(position_BF.astype(np.float32)).view(shape)
        factors_BFF = torch.from_numpy(self.states.factors_SFF[state_B].astype(np.float64))
        conditioning = embedding.conditioning(row_B, from_noise=True)
        source = NoiseSource(position=position_BKD, factors_BFF=factors_BFF)
        return NoiseEnd(replace(conditioning, position_BKD=position_BKD), source)


def sde_from_noise(source: NoiseSource, keys_B: np.ndarray, seed: int) -> EulerMaruyama:
    """The SDE of a flow from this source, each cell with random numbers of its own."""
    return EulerMaruyama(CellNoise(torch.from_numpy(keys_B), seed, SDE_STREAM), source)


def uniforms(keys: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """A uniform number for each cell from its own stream, shape (B,)."""
    return cell_uniform(torch.from_numpy(keys), (1,), seed, stream)[:, 0].double().numpy()
