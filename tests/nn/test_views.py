"""A transformer over views: an unordered set of tokens whose contributions are the velocity."""

from __future__ import annotations

import pytest
import torch

from celldit.nn.dit import DiTConfig
from celldit.nn.views import TokenViews, ViewedDiT

CONFIG = DiTConfig(width=16, depth=2, n_heads=2, dropout=0.0)
B, K, D, T, V = 5, 3, 4, 7, 2


def network(seed: int = 0, *, silent: bool = False) -> ViewedDiT:
    torch.manual_seed(seed)
    made = ViewedDiT(TokenViews.random(T, K * D, V, seed), 4, CONFIG).eval()
    if not silent:
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
    return made


def inputs(seed: int = 1) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    shapes = (B, K, D), (B,), (B, K, 2 * D), (B, 4)
    return tuple(torch.randn(shape, generator=draw) for shape in shapes)


def test_an_untrained_network_is_silent() -> None:
    assert not network(silent=True)(*inputs()).any()
    assert not network(silent=True).contributions(*inputs()).any()


def test_tokens_see_what_their_views_show() -> None:
    made = network()
    x_BKD = inputs()[0]
    seen = made.see(x_BKD.flatten(1))
    for g in range(T):
        torch.testing.assert_close(seen[:, g], x_BKD.flatten(1) @ made.views_TFV[g])


def test_the_velocity_is_the_sum_of_contributions() -> None:
    made = network()
    parts_BTF = made.contributions(*inputs())
    assert parts_BTF.shape == (B, T, K * D)
    torch.testing.assert_close(
        parts_BTF.sum(1).view(B, K, D), made(*inputs()), rtol=1e-5, atol=1e-6
    )


def test_the_order_of_tokens_changes_nothing() -> None:
    made = network()
    order = torch.randperm(T, generator=torch.Generator().manual_seed(3))
    other = ViewedDiT(TokenViews(made.views_TFV[order], made.identity_T[order]), 4, CONFIG).eval()
    state = made.state_dict()
    # What belongs to a token moves with it; all else is shared.
    own = [n for n in state if n.endswith(("project_in.weight", "project_in.bias"))]
    own += [n for n in state if n.endswith(("project_out.weight", "project_out.bias"))]
    assert len(own) == 4
    moved = {n: w[order] if n in (*own, "views_TFV", "identity_T") else w for n, w in state.items()}
    other.load_state_dict(moved)
    torch.testing.assert_close(other(*inputs()), made(*inputs()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        other.contributions(*inputs()),
        made.contributions(*inputs())[:, order],
        rtol=1e-5,
        atol=1e-6,
    )


def test_tokens_talk_to_each_other() -> None:
    """What one token sees changes what another contributes; that is what attention is for."""
    made = network()
    x_BKD, *rest = inputs()
    before = made.contributions(x_BKD, *rest)
    # A direction that the first token sees and the second does not.
    views = made.views_TFV
    hidden = torch.linalg.svd(views[1].T, full_matrices=True).Vh[V:]
    step = hidden.T @ (hidden @ views[0][:, 0])
    assert float((step @ views[1]).abs().max()) < 1e-5
    after = made.contributions(x_BKD + step.view(K, D), *rest)
    assert float((after - before)[:, 1].abs().max().detach()) > 1e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_random_views_are_reproducible(seed: int) -> None:
    one, two = (TokenViews.random(T, K * D, V, seed) for _ in range(2))
    assert torch.equal(one.views_TFV, two.views_TFV)
    assert (one.identity_T == -1).all()
