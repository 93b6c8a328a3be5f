from __future__ import annotations

import pytest
import torch

from celldit.errors import InputError
from celldit.flow.solvers import resolve_solver
from celldit.flow.solvers.grids import uniform_grid
from celldit.flow.source import AnchoredSource, GaussianSource


def draw(seed, n=2000):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_untrained_flow_predicts_the_baseline():
    control, effect = draw(0), draw(1)
    x0 = AnchoredSource()(control, effect)
    end = resolve_solver("heun").solve(lambda x, t: torch.zeros_like(x), x0, uniform_grid(3))
    assert torch.equal(end, control + effect)


def test_jitter_widens_by_its_variance():
    control, effect, noise = draw(0), draw(1), draw(2)
    x0 = AnchoredSource(jitter=0.5)(control, effect, noise)
    torch.testing.assert_close(x0, control + effect + 0.5 * noise)


def test_gaussian_source_has_its_position_and_spread():
    noise = draw(2)
    assert torch.equal(GaussianSource()(noise), noise)
    x0 = GaussianSource(torch.tensor([1.0, 0.0, -1.0]), 0.5)(noise)
    torch.testing.assert_close(x0, torch.tensor([1.0, 0.0, -1.0]) + 0.5 * noise)


def test_bad_input_is_refused():
    control = draw(0, 4)
    with pytest.raises(InputError, match="one effect per control"):
        AnchoredSource()(control, control[:1])
    with pytest.raises(InputError, match="needs noise"):
        AnchoredSource(jitter=0.1)(control, control)
    with pytest.raises(InputError, match="jitter"):
        AnchoredSource(jitter=-0.1)
