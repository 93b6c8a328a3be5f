from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import InputError, UnknownNameError
from celldit.flow.times import LogitNormal, Stratified, Uniform, resolve_times

SAMPLERS = [
    Uniform(),
    LogitNormal(),
    LogitNormal(8.0, 5.0),
    Stratified(),
    Stratified(LogitNormal()),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(sampler=st.sampled_from(SAMPLERS), batch=st.integers(1, 3000), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=40)
def test_times_lie_strictly_inside_and_repeat_with_the_seed(sampler, batch, seed):
    t = sampler(batch, seeded(seed))
    assert t.shape == (batch,)
    assert t.dtype == torch.float32
    assert bool(((t > 0) & (t < 1)).all())
    assert torch.equal(t, sampler(batch, seeded(seed)))


@given(batch=st.integers(1, 500), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_stratified_puts_one_time_in_each_stratum(batch, seed):
    t = Stratified()(batch, seeded(seed)).double()
    # Rounding to single precision may carry a time on to the edge of its stratum.
    sorted_t, k = t.sort().values, torch.arange(batch)
    assert bool((sorted_t >= k / batch - 1e-6).all())
    assert bool((sorted_t <= (k + 1) / batch + 1e-6).all())


def test_stratified_comes_in_random_order():
    t = Stratified()(1000, seeded())
    correlation = torch.corrcoef(torch.stack([t, torch.arange(1000.0)]))[0, 1]
    assert abs(float(correlation)) < 0.15


@pytest.mark.parametrize("wrap", [lambda s: s, Stratified])
def test_logit_normal_has_the_moments_it_is_given(wrap):
    t = wrap(LogitNormal(-0.5, 0.8))(50_000, seeded()).double()
    logit = torch.logit(t)
    assert float(logit.mean()) == pytest.approx(-0.5, abs=0.02)
    assert float(logit.std()) == pytest.approx(0.8, abs=0.02)


def test_uniform_is_uniform():
    t = Uniform()(50_000, seeded()).double().sort().values
    ideal = (torch.arange(50_000) + 0.5) / 50_000
    # Kolmogorov-Smirnov at the level of one in a million.
    assert float((t - ideal).abs().max()) < math.sqrt(-0.5 * math.log(0.5e-6) / 50_000)


def test_stratifying_lowers_the_variance_of_a_mean():
    def spread(sampler):
        generator = seeded()
        return torch.stack([sampler(64, generator).square().mean() for _ in range(200)]).std()

    assert spread(Stratified()) < 0.1 * spread(Uniform())


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="positive std"):
        LogitNormal(0.0, 0.0)
    with pytest.raises(InputError, match="finite mean"):
        LogitNormal(math.nan, 1.0)
    for batch in (0, -1, 2.0, True):
        with pytest.raises(InputError, match="positive integer"):
            Uniform()(batch)


def test_samplers_are_found_by_name():
    assert resolve_times("logit_normal") == LogitNormal()
    with pytest.raises(UnknownNameError, match="stratified"):
        resolve_times("stratifed")
