"""What the velocity network is told, and what is withheld from it."""

from __future__ import annotations

import torch

from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.nn.dit import DiTConfig


def test_withheld_conditions_make_no_difference_and_told_ones_do() -> None:
    torch.manual_seed(0)
    flow = AnchoredFlow(3, 2, DiTConfig(width=8, depth=1, n_heads=2)).eval()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    x_BKD, t_B = torch.randn(4, 3, 2), torch.full((4,), 0.5)
    from_noise_B = torch.zeros(4, dtype=torch.bool)

    def velocity(effect_BKD: torch.Tensor, withheld: bool) -> torch.Tensor:
        condition = FlowCondition(
            effect_BKD,
            torch.zeros_like(effect_BKD),
            torch.ones(4),
            from_noise_B,
            torch.full((4,), withheld),
        )
        with torch.no_grad():
            return flow(x_BKD, t_B, condition)

    one, two = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    assert torch.equal(velocity(one, True), velocity(two, True))
    assert (velocity(one, False) - velocity(two, False)).abs().max() > 1e-3
