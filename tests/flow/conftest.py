"""Flows between Gaussians, whose velocities and solutions are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from celldit.flow.path import GaussianSource, per_row


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
    source: GaussianSource = field(default_factory=GaussianSource)

    def moments(self, t):
        mean = t * self.mean + (1 - t) * self.source.position
        return mean, (t * self.std) ** 2 + ((1 - t) * self.source.spread) ** 2

    def __call__(self, x, t):
        t = per_row(t, x)
        centre, variance = self.moments(t)
        half_slope = t * self.std**2 - (1 - t) * self.source.spread**2
        return self.mean - self.source.position + half_slope / variance * (x - centre)

    def solution(self, x0, t):
        """Where a point x0 of the source is at time t (a number)."""
        centre, variance = self.moments(torch.tensor(t, dtype=x0.dtype))
        return centre + variance.sqrt() * (x0 - self.source.position) / self.source.spread


@pytest.fixture
def gaussian_flow():
    return GaussianFlow
