"""Attention over sets: order does not matter, padding does not exist."""

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


@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 9), st.integers(0, 1000))
def test_order_of_members_does_not_matter(n_batch: int, n: int, m: int, seed: int) -> None:
    layer, x, members = attention(), draw(n_batch, n, 8), draw(n_batch, m, 8, seed=seed)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(layer(x, members[:, order]), layer(x, members), rtol=0, atol=1e-6)


@given(st.integers(1, 7), st.integers(0, 1000))
def test_self_attention_is_permutation_equivariant(n: int, seed: int) -> None:
    layer, x = attention(), draw(2, n, 8, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = layer(x[:, order], x[:, order])
    torch.testing.assert_close(moved, layer(x, x)[:, order], rtol=0, atol=1e-6)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 1000))
def test_padding_changes_nothing(m: int, n_padding: int, seed: int) -> None:
    layer, x, members = attention(), draw(2, 3, 8), draw(2, m, 8, seed=seed)
    padded = torch.cat([members, 100 * draw(2, n_padding, 8, seed=seed + 1)], dim=1)
    mask = torch.arange(m + n_padding).expand(2, -1) < m
    torch.testing.assert_close(layer(x, padded, mask), layer(x, members), rtol=0, atol=1e-6)


def test_a_set_without_members_reads_nothing() -> None:
    layer, x, members = attention(), draw(3, 4, 8), draw(3, 5, 8, seed=1)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    y = layer(x, members, mask)
    assert torch.equal(y[1], layer.out.bias.expand(4, 8))
    torch.testing.assert_close(y[[0, 2]], layer(x, members)[[0, 2]])
    y.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_a_batch_without_any_token() -> None:
    layer, x = attention(), draw(2, 4, 8)
    mask = torch.zeros(2, 0, dtype=torch.bool)
    assert torch.equal(layer(x, draw(2, 0, 8), mask), layer.out.bias.expand(2, 4, 8))


def test_weights_are_those_that_the_result_uses() -> None:
    layer, x, members = attention(n_heads=1), draw(2, 3, 8), draw(2, 5, 8, seed=1)
    values = layer.to_kv(members)[..., 8:]
    expected = layer.out(layer.weights(x, members) @ values)
    torch.testing.assert_close(layer(x, members), expected)


def test_size_of_queries_and_keys_does_not_sharpen_attention() -> None:
    layer, x, members = attention(), draw(1, 2, 8), draw(1, 4, 8, seed=1)
    torch.testing.assert_close(layer.weights(1000 * x, members), layer.weights(x, members))


def test_dropout_only_while_training() -> None:
    layer, x = attention(dropout=0.5), draw(1, 4, 8)
    assert torch.equal(layer(x, x), layer(x, x))
    layer.train()
    assert not torch.equal(layer(x, x), layer(x, x))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 8 is not a multiple of n_heads 3"):
        Attention(8, 3)
