from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.flow.grids import uniform_grid
from celldit.flow.guidance import GuidedVelocity
from celldit.flow.solvers import resolve_solver


def conditional(x, t):
    return 2 * x + t[:, None]


def unconditional(x, t):
    return x - 1


class CountedVelocity:
    """A field that counts how often it is evaluated."""

    def __init__(self, velocity):
        self.velocity, self.n_evaluations = velocity, 0

    def __call__(self, x, t):
        self.n_evaluations += 1
        return self.velocity(x, t)


def counted(scale, interval=(0.0, 1.0)):
    cond, free = CountedVelocity(conditional), CountedVelocity(unconditional)
    return cond, free, GuidedVelocity(cond, free, scale, interval)


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64)


@given(scale=st.floats(0, 10))
@settings(deadline=None, max_examples=20)
def test_guidance_extrapolates_from_the_unconditional_velocity(scale):
    free, cond = unconditional(X, T), conditional(X, T)
    guided = GuidedVelocity(conditional, unconditional, scale)(X, T)
    torch.testing.assert_close(guided, free + scale * (cond - free))


def test_each_side_is_evaluated_only_where_it_counts():
    inside, outside = torch.full((5,), 0.5), torch.full((5,), 0.9)
    for scale, t, expected in [
        (1.0, inside, (1, 0)),
        (0.0, inside, (0, 1)),
        (3.0, inside, (1, 1)),
        (3.0, outside, (1, 0)),
        (0.0, outside, (1, 0)),
    ]:
        cond, free, guided = counted(scale, (0.2, 0.8))
        guided(X, t)
        assert (cond.n_evaluations, free.n_evaluations) == expected


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_interval_acts_row_by_row_with_its_ends(scale):
    _, _, guided = counted(scale, (0.2, 0.8))
    everywhere = GuidedVelocity(conditional, unconditional, scale)(X, T)
    v = guided(X, T)
    torch.testing.assert_close(v[1:4], everywhere[1:4])
    assert torch.equal(v[[0, 4]], conditional(X, T)[[0, 4]])


def test_solver_pays_for_guidance_only_inside_the_interval():
    cond, free, guided = counted(2.0, (0.5, 1.0))
    resolve_solver("euler").solve(guided, X, uniform_grid(10))
    assert (cond.n_evaluations, free.n_evaluations) == (10, 5)
