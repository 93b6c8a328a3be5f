"""GELU with its slope written out is torch's."""

import pytest
import torch
from torch import nn

from celldit.nn.gelu import GELU


def both(x):
    """Results and gradients, with a weight for each element: of celldit, of torch in double."""
    weight_N = torch.linspace(-1, 2, len(x))
    found = []
    for layer, kind in ((GELU(), torch.float32), (nn.GELU(approximate="tanh"), torch.float64)):
        own = x.to(kind).requires_grad_()
        y = layer(own)
        found.append((y.detach().float(), *_gradient(y, own, weight_N)))
    return found


def _gradient(y, x, weight_N):
    return [g.float() for g in torch.autograd.grad(y, x, weight_N.to(y.dtype))]


def test_it_and_its_gradient_are_torchs():
    torch.testing.assert_close(*both(torch.linspace(-15, 15, 30_001)), rtol=1e-5, atol=4e-6)


def test_far_from_zero_it_is_torchs():
    torch.testing.assert_close(*both(torch.tensor([-1e12, -1e4, -60.0, 60.0, 1e4, 1e12])))


@pytest.mark.parametrize("trains", [False, True])
def test_without_a_gradient_it_is_torchs_to_the_last_bit(trains):
    x = torch.randn(7, 5, requires_grad=trains)
    with torch.no_grad():
        assert torch.equal(GELU()(x), nn.functional.gelu(x, approximate="tanh"))


def test_what_comes_in_is_left_as_it_is():
    x = torch.randn(7, 5, requires_grad=True)
    before = x.detach().clone()
    GELU()(x).sum().backward()
    assert torch.equal(x.detach(), before)
