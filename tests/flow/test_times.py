from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.flow.path import stratified_times


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(batch=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_there_is_one_time_in_each_part(batch, seed):
    t = stratified_times(batch, generator=seeded(seed))
    assert t.dtype == torch.float32
    assert 0 < float(t.min()) <= float(t.max()) < 1
    # Single precision may round a draw on to the edge between two parts.
    part = (t.double().sort().values * batch - torch.arange(batch)).clamp(0, 1)
    torch.testing.assert_close(
        t.double().sort().values * batch, torch.arange(batch) + part, rtol=0, atol=1e-4
    )


def test_order_is_random_and_repeatable():
    t = stratified_times(1000, generator=seeded())
    assert abs(float(torch.corrcoef(torch.stack([t, torch.arange(1000.0)]))[0, 1])) < 0.2
    assert torch.equal(t, stratified_times(1000, generator=seeded()))
    assert not torch.equal(t, stratified_times(1000, generator=seeded(1)))


def test_every_time_is_as_likely_as_any_other():
    t = torch.cat([stratified_times(7, generator=seeded(i)) for i in range(3000)])
    assert float(t.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(t.var()) == pytest.approx(1 / 12, abs=0.002)
