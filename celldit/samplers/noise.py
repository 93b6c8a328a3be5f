"""The noise source of a condition: a Gaussian about where its cells lie, with their scatter.

``x0 = position + factor · ε``; position and factor are the simple estimates of
:class:`celldit.conditions.population.Population`. The map between ε and x0 is linear and
invertible, which is what inversion needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from celldit.conditions import Condition
from celldit.conditions.population import Population
from celldit.flow import GaussianSource, Noise, Solver, resolve_solver
from celldit.flow.draws import SDE_STREAM, CellNoise
from celldit.samplers.flow import SolverConfig


@dataclass(frozen=True, eq=False)
class NoiseSource(GaussianSource):
    """Gaussian sources of B cells, each with the mean and scatter of its condition.

    Attributes
    ----------
    position
        Means, shape (B, K, D).
    factors_BFF
        Cholesky factors of the scatter over the F = K·D flattened dimensions, float64.
    """

    factors_BFF: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))

    def __call__(self, noise: Tensor) -> Tensor:
        """Start points from standard normal noise, both of shape (B, K, D)."""
        return self.position + self.scatter(noise)

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


@dataclass(frozen=True, eq=False)
class NoiseSources:
    """The noise sources of Q conditions, looked up once.

    Attributes
    ----------
    positions_QKD
        Means.
    factors_XFF
        Distinct factors, float64.
    factor_row
        Which factor is that of each condition, shape (Q,).
    """

    positions_QKD: Tensor
    factors_XFF: Tensor
    factor_row: np.ndarray

    @classmethod
    def of(
        cls, population: Population, conditions: list[Condition], positions_QKD: Tensor
    ) -> NoiseSources:
        """Look up the scatter of Q conditions whose means are known."""
        surroundings = list(dict.fromkeys(c.surroundings for c in conditions))
        row_of = {key: i for i, key in enumerate(surroundings)}
        factors_XFF = np.stack([population.factor(key) for key in surroundings])
        return cls(
            positions_QKD,
            torch.from_numpy(factors_XFF).double(),
            np.array([row_of[c.surroundings] for c in conditions], dtype=np.int64),
        )

    def positions_of(self, row_B: np.ndarray) -> Tensor:
        """Means of B cells in the conditions `row_B`, shape (B, K, D)."""
        return self.positions_QKD[torch.from_numpy(row_B)]

    def rows(self, row_B: np.ndarray) -> NoiseSource:
        """The source of each of B cells in the conditions `row_B`."""
        return NoiseSource(
            position=self.positions_of(row_B),
            factors_BFF=self.factors_XFF[torch.from_numpy(self.factor_row[row_B])],
        )


@dataclass(frozen=True, eq=False)
class ScatteredNoise:
    """Noise for the steps of an SDE, with the scatter of the source.

    A diffusion measured in units of the source's covariance lets that covariance drop out of the
    drift, whether it is diagonal or not.
    """

    noise: Noise
    source: NoiseSource

    def __call__(self, draw: int, like: Tensor) -> Tensor:
        """Draw number `draw`, shape (B, K, D)."""
        return self.source.scatter(self.noise(draw, like))


def solver_from_noise(
    config: SolverConfig, source: NoiseSource, keys_B: np.ndarray, seed: int
) -> Solver:
    """The solver that `config` names, for a flow from this source.

    Parameters
    ----------
    config
        Names the solver.
    source
        Where the flow starts.
    keys_B, seed
        Random stream of each cell, for ``"sde"``.
    """
    supply = CellNoise(torch.from_numpy(keys_B), seed, SDE_STREAM)
    return resolve_solver(
        config.solver,
        source=GaussianSource(source.position),
        noise=ScatteredNoise(supply, source),
    )
