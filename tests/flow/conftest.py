"""Flows between Gaussians, whose velocities and solutions are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from celldit.flow.path import LinearPath, Path, per_row
from celldit.flow.source import GaussianSource


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class GaussianFlow:
    """Flow from a Gaussian source to N(mean, std**2), each coordinate alone."""

    mean: float = 1.5
    std: float = 0.4
    path: Path = field(default_factory=LinearPath)
    source: GaussianSource = field(default_factory=GaussianSource)

    def moments(self, t):
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        mean = alpha * self.mean + sigma * self.source.position
        return mean, (alpha * self.std) ** 2 + (sigma * self.source.spread) ** 2

    def __call__(self, x, t):
        t = per_row(t, x)
        path = self.path
        centre, variance = self.moments(t)
        d_alpha, d_sigma = path.d_alpha(t), path.d_sigma(t)
        d_centre = d_alpha * self.mean + d_sigma * self.source.position
        half_slope = path.alpha(t) * d_alpha * self.std**2
        half_slope = half_slope + path.sigma(t) * d_sigma * self.source.spread**2
        return d_centre + half_slope / variance * (x - centre)

    def solution(self, x0, t):
        """Where a point x0 of the source is at time t (a number)."""
        centre, variance = self.moments(torch.tensor(t, dtype=x0.dtype))
        return centre + variance.sqrt() * (x0 - self.source.position) / self.source.spread


@pytest.fixture
def gaussian_flow():
    return GaussianFlow
