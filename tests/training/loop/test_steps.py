"""Clipping by the norm is torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from celldit.training.loop.steps import SMALL, clip_norm_


def weights(size: float) -> list[nn.Parameter]:
    """Some weights, one without a gradient, one whose gradient is not contiguous."""
    draw = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (), (2, 2), (6, 2))]
    for weight in made[:-2]:
        weight.grad = size * torch.randn(weight.shape, generator=draw)
    made[-1].grad = size * torch.randn(2, 6, generator=draw).T
    return made


@pytest.mark.parametrize("size", [0.01, 0.2, 1.0, 1e4, 0.0, float("nan"), float("inf")])
def test_it_is_what_torch_clips(size: float) -> None:
    own = weights(size)
    of_torch = copy.deepcopy(own)
    for weight, other in zip(own, of_torch, strict=True):
        other.grad = None if weight.grad is None else weight.grad.clone()
    clip_norm_(own, 0.9)
    nn.utils.clip_grad_norm_(of_torch, 0.9)
    for weight, other in zip(own, of_torch, strict=True):
        if weight.grad is None:
            assert other.grad is None
        else:
            torch.testing.assert_close(weight.grad, other.grad, equal_nan=True)


def test_short_gradients_keep_every_bit() -> None:
    own = weights(0.01)
    before = [None if weight.grad is None else weight.grad.clone() for weight in own]
    clip_norm_(own, 10.0)
    for weight, grad in zip(own, before, strict=True):
        assert grad is None or torch.equal(weight.grad, grad)


def test_without_gradients_there_is_nothing_to_clip() -> None:
    clip_norm_([nn.Parameter(torch.zeros(3))], 1.0)
    clip_norm_([], 1.0)


def test_many_weights_are_left_to_torch() -> None:
    weights = [torch.zeros(SMALL // 2 + 1) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.full_like(weight, 0.1)
    clip_norm_(weights, 1.0)
    total = torch.cat([w.grad for w in weights if w.grad is not None]).double().norm()
    assert abs(float(total) - 1) < 1e-3
