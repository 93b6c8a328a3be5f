"""The benchmark of a second path (``notebooks/benchmarks/second_path.py``)."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.flow.grids import uniform_grid
from celldit.flow.path import per_row
from celldit.flow.solvers import resolve_solver

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks" / "benchmarks"))
from second_path import ddpm, on_arc


@given(time=st.floats(0, 1), seed=st.integers(0, 2**20))
@settings(deadline=None, max_examples=30)
def test_velocity_is_the_derivative_of_the_point(time, seed):
    generator = torch.Generator().manual_seed(seed)
    x0, x1 = torch.randn(2, 5, 3, 2, generator=generator, dtype=torch.float64).unbind(0)
    t = torch.full((5,), time, dtype=torch.float64)
    point, slope = torch.func.jvp(lambda t: on_arc(x0, x1, t)[0], (t,), (torch.ones_like(t),))
    torch.testing.assert_close(on_arc(x0, x1, t), (point, slope))


def test_its_flows_are_those_of_the_path():
    """Its ODE and its SDE both carry a standard normal to N(1.5, 0.6²)."""

    def field(x, t):
        angle = 0.5 * math.pi * per_row(t, x)
        variance = (0.6 * angle.sin()) ** 2 + angle.cos() ** 2
        half_slope = angle.sin() * angle.cos() * (0.6**2 - 1)
        moved = 1.5 * angle.cos() + half_slope / variance * (x - 1.5 * angle.sin())
        return 0.5 * math.pi * moved

    generator = torch.Generator().manual_seed(1)
    x0 = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    by_ode = resolve_solver("heun").solve(field, x0, uniform_grid(100))
    torch.testing.assert_close(by_ode, 1.5 + 0.6 * x0, rtol=0, atol=1e-3)

    def noise(draw, like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    by_sde = ddpm(field, x0, uniform_grid(150), noise)
    assert float(by_sde.mean()) == pytest.approx(1.5, abs=0.03)
    assert float(by_sde.var()) == pytest.approx(0.36, abs=0.03)
