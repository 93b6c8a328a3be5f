from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.flow.edit import FlowEnd, edit_flow
from celldit.flow.grids import cosine_grid, uniform_grid
from celldit.flow.noise import CellNoise
from celldit.flow.path import GaussianSource, on_path
from celldit.random import EDIT_STREAM


def cells(n=6, dtype=torch.float64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(5), dtype=dtype)


def seeded(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda draw, like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def edited(source, target, x, n_steps, noise, n_avg=1):
    """From one Gaussian flow to another, over the whole way."""
    ends = (FlowEnd(flow, flow.source) for flow in (source, target))
    return edit_flow(*ends, x, uniform_grid(n_steps), noise, n_avg)


def fixed(noise):
    """Draws given as (D, B, ...), which start again when they are used up."""
    return lambda draw, like: noise[draw % len(noise)]


@given(
    n_avg=st.integers(1, 3),
    n_steps=st.integers(1, 8),
    t_start=st.floats(0, 0.95),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=30)
def test_equal_velocities_give_back_the_very_bytes(n_avg, n_steps, t_start, seed):
    def wild(x, t):
        return torch.sin(7 * x) + x.sum(dim=1, keepdim=True) * t[:, None]

    for dtype in (torch.float32, torch.float64):
        x = cells(dtype=dtype)
        grid = uniform_grid(n_steps, t_start)
        end = FlowEnd(wild)
        assert torch.equal(edit_flow(end, end, x, grid, seeded(seed), n_avg), x)


@pytest.mark.parametrize("n_steps", [1, 7])
def test_gaussians_of_equal_width_are_shifted_exactly(n_steps, gaussian_flow):
    source, target = gaussian_flow(mean=-0.5, std=0.7), gaussian_flow(mean=2.0, std=0.7)
    moved = edited(source, target, cells(), n_steps, seeded())
    torch.testing.assert_close(moved, cells() + 2.5)


@pytest.mark.parametrize("n_steps", [1, 7])
def test_sources_that_depend_on_the_condition_are_accounted_for(n_steps, gaussian_flow):
    here, there = GaussianSource(-1.0, 0.8), GaussianSource(1.5, 0.8)
    source = gaussian_flow(mean=-0.5, std=0.7, source=here)
    target = gaussian_flow(mean=2.0, std=0.7, source=there)
    moved = edited(source, target, cells(), n_steps, seeded())
    torch.testing.assert_close(moved, cells() + 2.5)


def test_mean_cell_goes_to_the_mean_whatever_the_spreads(gaussian_flow):
    here, there = GaussianSource(0.0, 0.5), GaussianSource(0.4, 1.5)
    source = gaussian_flow(mean=1.0, std=0.7, source=here)
    target = gaussian_flow(mean=-2.0, std=0.3, source=there)
    # In linear fields a draw and its mirror image average to what no noise at all would give.
    noise = torch.randn(1, 1, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mirrored, mean_cell = fixed(torch.cat([noise, -noise])), torch.ones(1, 2).double()
    moved = edited(source, target, mean_cell, 5, mirrored, n_avg=2)
    torch.testing.assert_close(moved, torch.full((1, 2), -2.0).double())


def test_each_flow_is_asked_where_its_own_paths_are():
    here, there = GaussianSource(-1.0, 0.5), GaussianSource(2.0, 1.5)
    x, noise = cells(), cells().flip(0)
    asked = {}

    def record(name):
        def velocity(x, t):
            asked.setdefault(name, x)
            return torch.zeros_like(x)

        return velocity

    own, other = FlowEnd(record("own"), here), FlowEnd(record("other"), there)
    edit_flow(own, other, x, uniform_grid(3, 0.3), fixed(noise[None]))
    t = torch.full((6,), 0.3, dtype=torch.float64)
    torch.testing.assert_close(asked["own"], on_path(here(noise), x, t)[0])
    torch.testing.assert_close(asked["other"], on_path(there(noise), x, t)[0])


@pytest.mark.parametrize("t_start", [0.0, 0.3, 0.7])
def test_late_start_moves_by_the_closed_form(t_start, gaussian_flow):
    std, shift = 0.7, 2.5
    source = gaussian_flow(mean=-0.5, std=std)
    target = gaussian_flow(mean=2.0, std=std)
    ends, grid = (FlowEnd(source), FlowEnd(target)), cosine_grid(1000, t_start)
    moved = edit_flow(*ends, cells(), grid, seeded())
    # z - x - alpha(t) shift obeys the homogeneous equation, whose solutions grow as the standard
    # deviation of the marginal does.
    t = torch.tensor(t_start, dtype=torch.float64)
    spread = math.sqrt(float(source.moments(t)[1]))
    expected = shift * (1 - t_start * std / spread)
    torch.testing.assert_close(
        moved - cells(), torch.full((6, 2), expected).double(), rtol=0, atol=1e-2
    )


def test_averaging_noise_narrows_the_result(gaussian_flow):
    source, target = gaussian_flow(mean=0.0, std=1.0), gaussian_flow(mean=2.0, std=0.3)
    same_cell = torch.full((2000, 1), 0.4, dtype=torch.float64)

    def spread(n_avg):
        return float(edited(source, target, same_cell, 20, seeded(), n_avg).std())

    assert spread(1) / spread(16) == pytest.approx(4, rel=0.15)


def test_order_of_the_cells_is_kept(gaussian_flow):
    source, target = gaussian_flow(mean=0.0, std=1.0), gaussian_flow(mean=2.0, std=0.3)
    x, keys = cells(20, torch.float32), torch.arange(20)

    def run(rows):
        noise = CellNoise(keys[rows], seed=1, stream=EDIT_STREAM)
        return edited(source, target, x[rows], 10, noise, n_avg=3)

    whole = run(slice(None))
    assert torch.equal(run([13, 4]), whole[[13, 4]])


def test_given_noise_is_used_and_started_again(gaussian_flow):
    source, target = gaussian_flow(mean=0.0, std=1.0), gaussian_flow(mean=2.0, std=0.3)
    noise = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    once, swapped, other = (
        edited(source, target, cells(), 5, fixed(draws), n_avg=2)
        for draws in (noise, noise.flip(0), noise + 1)
    )
    torch.testing.assert_close(once, swapped)
    assert not torch.allclose(once, other)
