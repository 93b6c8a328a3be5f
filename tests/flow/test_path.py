from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.flow.path import GaussianSource, on_path


def pair(seed, shape=(5, 3, 2)):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2, *shape, generator=generator, dtype=torch.float64)).unbind(0)


@given(time=st.floats(0, 1), seed=st.integers(0, 2**20))
@settings(deadline=None, max_examples=30)
def test_velocity_is_the_derivative_of_the_point(time, seed):
    x0, x1 = pair(seed)
    t = torch.full((5,), time, dtype=torch.float64)
    point, slope = torch.func.jvp(lambda t: on_path(x0, x1, t)[0], (t,), (torch.ones_like(t),))
    torch.testing.assert_close(on_path(x0, x1, t), (point, slope))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_path_joins_source_to_data_exactly(dtype):
    x0, x1 = (x.to(dtype) for x in pair(0))
    assert torch.equal(on_path(x0, x1, torch.zeros(5, dtype=dtype))[0], x0)
    assert torch.equal(on_path(x0, x1, torch.ones(5, dtype=dtype))[0], x1)


def test_it_is_the_segment_with_its_constant_velocity():
    x0, x1 = pair(1)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    point, velocity = on_path(x0, x1, t)
    torch.testing.assert_close(point, x0 + t[:, None, None] * (x1 - x0))
    assert torch.equal(velocity, x1 - x0)


def test_gaussian_source_has_its_position_and_spread():
    noise = torch.randn(2000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.equal(GaussianSource()(noise), noise)
    x0 = GaussianSource(torch.tensor([1.0, 0.0, -1.0]), 0.5)(noise)
    torch.testing.assert_close(x0, torch.tensor([1.0, 0.0, -1.0]) + 0.5 * noise)
