"""A linear map for every token equals a loop over tokens."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.nn.layers import PerTokenLinear

sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, sizes)
def test_equals_a_loop(n: int, n_tokens: int, n_in: int, n_out: int) -> None:
    torch.manual_seed(0)
    layer = PerTokenLinear(n_tokens, n_in, n_out)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(n, n_tokens, n_in)
    loop = [x[:, k] @ layer.weight[k] + layer.bias[k] for k in range(n_tokens)]
    torch.testing.assert_close(layer(x), torch.stack(loop, dim=1))


def test_a_token_has_weights_of_its_own() -> None:
    torch.manual_seed(0)
    layer = PerTokenLinear(3, 4, 2)
    y = layer(torch.ones(1, 3, 4))[0]
    assert torch.cdist(y, y).add(torch.eye(3)).min() > 1e-3
    layer(torch.ones(1, 3, 4))[0, 1].sum().backward()
    assert (layer.weight.grad[[0, 2]] == 0).all()
    assert (layer.weight.grad[1] != 0).all()


def test_zero_start() -> None:
    layer = PerTokenLinear(3, 4, 2, zero=True)
    assert (layer(torch.randn(5, 3, 4)) == 0).all()


def test_variance_of_the_start_does_not_explode() -> None:
    torch.manual_seed(0)
    y = PerTokenLinear(20, 300, 50)(torch.randn(64, 20, 300))
    assert 0.2 < float(y.detach().std()) < 1.0


def test_what_comes_after_finds_tokens_in_order() -> None:
    assert PerTokenLinear(3, 4, 2)(torch.randn(5, 3, 4)).is_contiguous()
