"""Sets attended to in groups are attended to as they are alone."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from celldit.nn import cuda_attention
from celldit.nn.attention import Attention
from celldit.nn.cuda_attention import FEW, TILE, attend_in_groups

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def heads(batch: int, n: int, seed: int = 0, device: str = "cpu") -> list[torch.Tensor]:
    """Queries, keys and values of three heads beside each other."""
    draw = torch.Generator().manual_seed(seed)
    shape = (3, batch, n, 3, 8)
    return list(torch.randn(shape, generator=draw).to(device).transpose(2, 3))


@given(st.integers(1, 70), st.integers(1, FEW - 1))
def test_groups_are_read_like_sets_alone(batch: int, n: int) -> None:
    q, k, v = heads(batch, n)
    y = attend_in_groups(q, k, v)
    torch.testing.assert_close(y, scaled_dot_product_attention(q, k, v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch", "n"), [(7, 6), (16, 6), (33, 16), (5, 31)])
def test_gradients_are_those_of_sets_alone(batch: int, n: int) -> None:
    found = []
    for way in (attend_in_groups, scaled_dot_product_attention):
        inputs = [x.detach().requires_grad_() for x in heads(batch, n)]
        way(*inputs).square().sum().backward()
        found.append([x.grad for x in inputs])
    for grouped, alone in zip(*found, strict=True):
        torch.testing.assert_close(grouped, alone, rtol=1e-5, atol=1e-5)


def test_a_group_fits_a_tile() -> None:
    with mock.patch.object(
        cuda_attention, "scaled_dot_product_attention", wraps=scaled_dot_product_attention
    ) as kernel:
        for n in range(1, FEW):
            attend_in_groups(*heads(300, n))
            assert kernel.call_args.args[0].shape[2] <= TILE
            assert kernel.call_args.args[0].shape[2] > TILE // 2


def test_dropped_weights_stay_within_the_set() -> None:
    """What one set reads does not depend on another, dropout or not."""
    q, k, v = heads(9, 6)
    v[4] = torch.nan
    torch.manual_seed(0)
    y = attend_in_groups(q, k, v.nan_to_num(1e30), share=0.3)
    assert y[[0, 1, 2, 3, 5, 6, 7, 8]].abs().max() < 1e3
    assert y[4].abs().max() > 1e20


@pytest.mark.parametrize("training", [False, True])
def test_the_layer_gives_the_same_through_groups(training: bool) -> None:
    torch.manual_seed(0)
    layer, x = Attention(32, 4).train(training), torch.randn(11, 6, 32)
    alone = layer(x)
    with mock.patch.object(cuda_attention, "suits", return_value=True):
        torch.testing.assert_close(layer(x), alone, rtol=1e-5, atol=1e-5)


@needs_cuda
@pytest.mark.parametrize("n", [1, 6, 16, 31, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_gives_what_the_cpu_gives(n: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = Attention(64, 4), torch.randn(19, n, 64)
    gradients = []
    for device in ("cpu", "cuda"):
        there = layer.to(device).zero_grad() or layer
        inputs = x.detach().to(device).requires_grad_()
        half = device == "cuda" and dtype == torch.bfloat16
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            y = there(inputs)
        y.float().square().sum().backward()
        assert inputs.grad is not None
        gradients.append([z.detach().float().cpu() for z in (y, inputs.grad)])
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    for on_cpu, on_gpu in zip(*gradients, strict=True):
        assert (on_gpu - on_cpu).norm() < tolerance * on_cpu.norm()
