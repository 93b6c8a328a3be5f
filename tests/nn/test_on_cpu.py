"""Own gradients only where there is one to come, in single precision."""

from __future__ import annotations

import torch

from celldit.nn.on_cpu import trains_on_cpu


def test_only_single_precision_that_will_have_a_gradient() -> None:
    x = torch.zeros(2)
    assert not trains_on_cpu(x)
    x.requires_grad_()
    assert trains_on_cpu(x)
    assert not trains_on_cpu(x.double())
    assert not trains_on_cpu(x.bfloat16())
    with torch.no_grad():
        assert not trains_on_cpu(x)
