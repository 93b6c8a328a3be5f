from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import InputError
from celldit.flow.path import (
    LinearPath,
    TrigonometricPath,
    source_from_velocity,
)

PATHS = [LinearPath(), TrigonometricPath()]
some_path = st.sampled_from(PATHS)
some_time = st.floats(0, 1)
some_seed = st.integers(0, 2**20)


def pair(seed, shape=(5, 3, 2)):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2, *shape, generator=generator, dtype=torch.float64)).unbind(0)


@given(path=some_path, time=some_time, seed=some_seed)
@settings(deadline=None, max_examples=30)
def test_velocity_is_the_derivative_of_the_point(path, time, seed):
    x0, x1 = pair(seed)
    t = torch.full((5,), time, dtype=torch.float64)

    point, slope = torch.func.jvp(lambda t: path.sample(x0, x1, t).x_t, (t,), (torch.ones_like(t),))

    sample = path.sample(x0, x1, t)
    torch.testing.assert_close(sample.x_t, point)
    torch.testing.assert_close(sample.velocity, slope)
    assert sample.t is t


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_path_joins_source_to_data_exactly(path, dtype):
    x0, x1 = (x.to(dtype) for x in pair(0))
    at_0 = path.sample(x0, x1, torch.zeros(5, dtype=dtype)).x_t
    at_1 = path.sample(x0, x1, torch.ones(5, dtype=dtype)).x_t
    assert torch.equal(at_0, x0)
    assert torch.equal(at_1, x1)


def test_linear_path_is_the_segment_with_its_constant_velocity():
    x0, x1 = pair(1)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    sample = LinearPath().sample(x0, x1, t)
    torch.testing.assert_close(sample.x_t, x0 + t[:, None, None] * (x1 - x0))
    assert torch.equal(sample.velocity, x1 - x0)


@given(time=some_time)
@settings(deadline=None, max_examples=30)
def test_trigonometric_path_preserves_variance(time):
    path, t = TrigonometricPath(), torch.tensor([time], dtype=torch.float64)
    torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t))


@given(path=some_path, time=some_time, seed=some_seed)
@settings(deadline=None, max_examples=30)
def test_the_source_is_recovered_from_the_velocity(path, time, seed):
    x0, x1 = pair(seed)
    t = torch.full((5,), time, dtype=torch.float64)
    sample = path.sample(x0, x1, t)
    torch.testing.assert_close(source_from_velocity(path, sample.velocity, sample.x_t, t), x0)


def test_shapes_that_do_not_fit_are_refused():
    x0, x1 = pair(0)
    with pytest.raises(InputError, match="equal shapes"):
        LinearPath().sample(x0, x1[:1], torch.zeros(5))
    with pytest.raises(InputError, match="one time per row"):
        LinearPath().sample(x0, x1, torch.zeros(1))
    with pytest.raises(InputError, match="one time per row"):
        LinearPath().sample(x0, x1, torch.zeros(5, 1))
