"""Attention within sets: order does not matter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.nn.attention import Attention


def attention(width: int = 8, n_heads: int = 2, dropout: float = 0.0) -> Attention:
    torch.manual_seed(0)
    return Attention(width, n_heads, dropout).eval()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 7), st.integers(0, 1000))
def test_attention_is_permutation_equivariant(n: int, seed: int) -> None:
    layer, x = attention(), draw(2, n, 8, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=0, atol=1e-6)


def test_weights_are_those_that_the_result_uses() -> None:
    layer, x = attention(n_heads=1), draw(2, 5, 8)
    values = layer.to_kv(x)[..., 8:]
    torch.testing.assert_close(layer(x), layer.out(layer.weights(x) @ values))


def test_size_of_queries_and_keys_does_not_sharpen_attention() -> None:
    layer, x = attention(), draw(1, 4, 8)
    torch.testing.assert_close(layer.weights(1000 * x), layer.weights(x))


def test_dropout_only_while_training() -> None:
    layer, x = attention(dropout=0.5), draw(1, 4, 8)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 8 is not a multiple of n_heads 3"):
        Attention(8, 3)
