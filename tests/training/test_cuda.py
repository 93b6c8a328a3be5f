"""What is done on a GPU, and for which networks it pays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from celldit.flow.anchored import AnchoredFlow
from celldit.nn.dit import DiTConfig
from celldit.nn.mlp import MLPConfig
from celldit.nn.sizes import size_of
from celldit.training import TrainingConfig
from celldit.training.cuda import compile_network, is_large, uses_half
from celldit.training.flow_stage import FlowStage


@pytest.mark.parametrize(("name", "large"), [("S", False), ("B", False), ("L", True)])
def test_half_precision_and_compilation_are_for_large_networks(name: str, large: bool) -> None:
    with torch.device("meta"):
        flow = AnchoredFlow(6, 8, size_of(name))
    assert is_large(flow, TrainingConfig().flow_batch) is large
    assert uses_half(flow, TrainingConfig().flow_batch, torch.device("cpu")) is False
    assert is_large(flow, 10**6)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_of_a_fused_optimiser_are_clipped(algorithm: str) -> None:
    stage = FlowStage(AnchoredFlow(2, 3, DiTConfig(16, 1, 2)), [], TrainingConfig(), 10)
    optimizer = stage.configure_optimizers()["optimizer"]
    for weight in stage.flow.parameters():
        weight.grad = torch.full_like(weight, 2.0)
    stage.configure_gradient_clipping(optimizer, 0.5, algorithm)
    grads = torch.cat([weight.grad.flatten() for weight in stage.flow.parameters()])
    size = grads.norm() if algorithm == "norm" else grads.abs().max()
    assert float(size) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("config", [DiTConfig(16, 2, 2), MLPConfig(width=16, depth=1)])
def test_compiled_parts_leave_names_and_copies_alone(
    monkeypatch: pytest.MonkeyPatch, config: Any
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    flow = AnchoredFlow(2, 3, config)
    names = list(flow.state_dict())
    compile_network(flow)
    assert list(flow.state_dict()) == names
    compiled = [m for m in flow.modules() if m._compiled_call_impl is not None]
    assert len(compiled) == (2 if isinstance(config, DiTConfig) else 1)
    assert all(m._compiled_call_impl is None for m in copy.deepcopy(flow).modules())
