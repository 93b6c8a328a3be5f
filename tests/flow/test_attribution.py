"""The displacement is the sum of what the tokens move a cell by."""

from __future__ import annotations

import pytest
import torch

from celldit.errors import InputError
from celldit.flow import resolve_solver, uniform_grid
from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.flow.attribution import contributed
from celldit.nn.dit import DiTConfig
from celldit.nn.views import TokenViews

K, D, B = 3, 4, 6
CONFIG = DiTConfig(width=16, depth=2, n_heads=2)


def flow() -> AnchoredFlow:
    torch.manual_seed(0)
    made = AnchoredFlow(K, D, CONFIG, views=TokenViews.random(5, K * D, 2, 0))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return made.train()


def told() -> tuple[torch.Tensor, FlowCondition]:
    draw = torch.Generator().manual_seed(1)
    x0, effect = (torch.randn(B, K, D, generator=draw) for _ in range(2))
    flags = torch.zeros(B, dtype=torch.bool)
    return x0, FlowCondition(effect, torch.zeros_like(effect), torch.zeros(B), flags, flags)


@pytest.mark.parametrize(("solver", "n_steps"), [("euler", 1), ("heun", 8), ("rk4", 3)])
def test_contributions_sum_to_the_displacement(solver: str, n_steps: int) -> None:
    made, (x0_BKD, condition) = flow(), told()
    times = uniform_grid(n_steps)
    end_BKD, parts_BTF = contributed(made, x0_BKD, condition, times, solver)
    assert parts_BTF.shape == (B, 5, K * D)
    step_BF = (end_BKD - x0_BKD).flatten(1)
    torch.testing.assert_close(parts_BTF.sum(1), step_BF, rtol=1e-5, atol=1e-5)
    assert made.training
    made.eval()
    with torch.no_grad():
        plain = resolve_solver(solver).solve(lambda x, t: made(x, t, condition), x0_BKD, times)
    torch.testing.assert_close(end_BKD, plain, rtol=1e-4, atol=1e-5)
    assert float(step_BF.abs().max()) > 0.1


def test_a_network_of_slices_is_refused() -> None:
    made = AnchoredFlow(K, D, DiTConfig(width=16, depth=1, n_heads=2, tokens="latent"))
    with pytest.raises(InputError, match="does not attend to gene sets"):
        contributed(made, *told(), uniform_grid(1), "euler")
