from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from celldit.errors import UnknownNameError
from celldit.flow.grids import cosine_grid, quadratic_grid, resolve_grid, uniform_grid

GRIDS = [uniform_grid, quadratic_grid, cosine_grid]
some_grid = st.sampled_from(GRIDS)
time = st.integers(-50, 50).map(lambda k: k / 25)


@given(grid=some_grid, n_steps=st.integers(1, 2000), t0=time, t1=time)
@settings(deadline=None, max_examples=60)
def test_grids_are_monotone_and_include_both_ends(grid, n_steps, t0, t1):
    assume(t0 != t1)
    times = grid(n_steps, t0, t1)
    assert times.shape == (n_steps + 1,)
    assert times[0] == t0
    assert times[-1] == t1
    assert bool((times.diff().sign() == np.sign(t1 - t0)).all())


@given(grid=some_grid, n_steps=st.integers(1, 300), t0=time, t1=time)
@settings(deadline=None, max_examples=30)
def test_backward_visits_the_times_of_forward(grid, n_steps, t0, t1):
    if t0 != t1:
        assert torch.equal(grid(n_steps, t0, t1), grid(n_steps, t1, t0).flip(0))


def test_spacing():
    assert uniform_grid(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert quadratic_grid(4).tolist() == [0, 0.4375, 0.75, 0.9375, 1]
    steps = quadratic_grid(50).diff()
    assert bool((steps.diff() < 0).all())
    steps = cosine_grid(50).diff()
    torch.testing.assert_close(steps, steps.flip(0))
    assert bool((steps[:25].diff() > 0).all())


def test_grids_are_found_by_name():
    assert resolve_grid("cosine") is cosine_grid
    with pytest.raises(UnknownNameError, match="quadratic"):
        resolve_grid("square")
