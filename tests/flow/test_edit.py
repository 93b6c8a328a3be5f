from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import InputError
from celldit.flow.draws import CellNoise
from celldit.flow.edit import FlowEdit
from celldit.flow.path import LinearPath, TrigonometricPath
from celldit.flow.solvers.grids import cosine_grid
from celldit.flow.source import GaussianSource
from celldit.random import EDIT_STREAM

PATHS = [LinearPath(), TrigonometricPath()]


def cells(n=6, dtype=torch.float64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(5), dtype=dtype)


def seeded(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda draw, like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def fixed(noise):
    """Draws given as (D, B, ...), which start again when they are used up."""
    return lambda draw, like: noise[draw % len(noise)]


@given(
    path=st.sampled_from(PATHS),
    n_avg=st.integers(1, 3),
    n_steps=st.integers(1, 8),
    t_start=st.floats(0, 0.95),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=30)
def test_equal_velocities_give_back_the_very_bytes(path, n_avg, n_steps, t_start, seed):
    def wild(x, t):
        return torch.sin(7 * x) + x.sum(dim=1, keepdim=True) * t[:, None]

    for dtype in (torch.float32, torch.float64):
        x = cells(dtype=dtype)
        edit = FlowEdit(n_avg=n_avg, t_start=t_start, path=path)
        assert torch.equal(edit.edit(wild, wild, x, n_steps, seeded(seed)), x)


@pytest.mark.parametrize("n_steps", [1, 7])
def test_gaussians_of_equal_width_are_shifted_exactly(n_steps, gaussian_flow):
    source, target = gaussian_flow(mean=-0.5, std=0.7), gaussian_flow(mean=2.0, std=0.7)
    edited = FlowEdit().edit(source, target, cells(), n_steps, seeded())
    torch.testing.assert_close(edited, cells() + 2.5)


@pytest.mark.parametrize("n_steps", [1, 7])
def test_sources_that_depend_on_the_condition_are_accounted_for(n_steps, gaussian_flow):
    here, there = GaussianSource(-1.0, 0.8), GaussianSource(1.5, 0.8)
    source = gaussian_flow(mean=-0.5, std=0.7, source=here)
    target = gaussian_flow(mean=2.0, std=0.7, source=there)
    edited = FlowEdit().edit(source, target, cells(), n_steps, seeded(), here, there)
    torch.testing.assert_close(edited, cells() + 2.5)


def test_mean_cell_goes_to_the_mean_whatever_the_spreads(gaussian_flow):
    here, there = GaussianSource(0.0, 0.5), GaussianSource(0.4, 1.5)
    source = gaussian_flow(mean=1.0, std=0.7, source=here)
    target = gaussian_flow(mean=-2.0, std=0.3, source=there)
    # In linear fields a draw and its mirror image average to what no noise at all would give.
    noise = torch.randn(1, 1, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mirrored, mean_cell = fixed(torch.cat([noise, -noise])), torch.ones(1, 2).double()
    edited = FlowEdit(n_avg=2).edit(source, target, mean_cell, 5, mirrored, here, there)
    torch.testing.assert_close(edited, torch.full((1, 2), -2.0).double())


@pytest.mark.parametrize("path", PATHS)
def test_each_flow_is_asked_where_its_own_paths_are(path):
    here, there = GaussianSource(-1.0, 0.5), GaussianSource(2.0, 1.5)
    x, noise = cells(), cells().flip(0)
    asked = {}

    def record(name):
        def velocity(x, t):
            asked.setdefault(name, x)
            return torch.zeros_like(x)

        return velocity

    edit = FlowEdit(t_start=0.3, path=path)
    edit.edit(record("own"), record("other"), x, 3, fixed(noise[None]), here, there)
    t = torch.full((6,), 0.3, dtype=torch.float64)
    torch.testing.assert_close(asked["own"], path.sample(here(noise), x, t).x_t)
    torch.testing.assert_close(asked["other"], path.sample(there(noise), x, t).x_t)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("t_start", [0.0, 0.3, 0.7])
def test_late_start_moves_by_the_closed_form(path, t_start, gaussian_flow):
    std, shift = 0.7, 2.5
    source = gaussian_flow(mean=-0.5, std=std, path=path)
    target = gaussian_flow(mean=2.0, std=std, path=path)
    edit = FlowEdit(t_start=t_start, path=path, grid=cosine_grid)
    edited = edit.edit(source, target, cells(), 1000, seeded())
    # z - x - alpha(t) shift obeys the homogeneous equation, whose solutions grow as the standard
    # deviation of the marginal does.
    t = torch.tensor(t_start, dtype=torch.float64)
    spread = math.sqrt(float(source.moments(t)[1]))
    expected = shift * (1 - float(path.alpha(t)) * std / spread)
    torch.testing.assert_close(
        edited - cells(), torch.full((6, 2), expected).double(), rtol=0, atol=1e-2
    )


def test_averaging_noise_narrows_the_result(gaussian_flow):
    source, target = gaussian_flow(mean=0.0, std=1.0), gaussian_flow(mean=2.0, std=0.3)
    same_cell = torch.full((2000, 1), 0.4, dtype=torch.float64)

    def spread(n_avg):
        edited = FlowEdit(n_avg=n_avg).edit(source, target, same_cell, 20, seeded())
        return float(edited.std())

    assert spread(1) / spread(16) == pytest.approx(4, rel=0.15)


def test_order_of_the_cells_is_kept(gaussian_flow):
    source, target = gaussian_flow(mean=0.0, std=1.0), gaussian_flow(mean=2.0, std=0.3)
    x, keys = cells(20, torch.float32), torch.arange(20)

    def run(rows):
        noise = CellNoise(keys[rows], seed=1, stream=EDIT_STREAM)
        return FlowEdit(n_avg=3).edit(source, target, x[rows], 10, noise)

    whole = run(slice(None))
    assert torch.equal(run([13, 4]), whole[[13, 4]])


def test_given_noise_is_used_and_started_again(gaussian_flow):
    source, target = gaussian_flow(mean=0.0, std=1.0), gaussian_flow(mean=2.0, std=0.3)
    noise = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    edit = FlowEdit(n_avg=2)
    once = edit.edit(source, target, cells(), 5, fixed(noise))
    swapped = edit.edit(source, target, cells(), 5, fixed(noise.flip(0)))
    other = edit.edit(source, target, cells(), 5, fixed(noise + 1))
    torch.testing.assert_close(once, swapped)
    assert not torch.allclose(once, other)


def test_bad_settings_are_refused(gaussian_flow):
    for n_avg in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="n_avg"):
            FlowEdit(n_avg=n_avg)
    for t_start in (1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match="t_start"):
            FlowEdit(t_start=t_start)
    flow = gaussian_flow()
    with pytest.raises(InputError, match="n_steps"):
        FlowEdit().edit(flow, flow, cells(), 0, seeded())
