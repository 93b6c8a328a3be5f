"""What is done on a GPU, and for which networks it pays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.nn.comparators import MLPConfig
from celldit.nn.dit import DiTConfig, size_of
from celldit.training import TrainingConfig
from celldit.training.devices.cuda import compile_network, is_large
from celldit.training.devices.parallel import device_of
from celldit.training.flow_stage import FlowStage
from celldit.training.loop.trainer import halves_on_cuda, trainer_defaults


@pytest.mark.parametrize(("name", "large"), [("S", False), ("B", False), ("L", True)])
def test_half_precision_and_compilation_are_for_large_networks(name: str, large: bool) -> None:
    with torch.device("meta"):
        flow = AnchoredFlow(6, 8, size_of(name))
    assert is_large(flow, TrainingConfig().flow_batch) is large
    assert is_large(flow, 10**6)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_of_a_fused_optimiser_are_clipped(algorithm: str) -> None:
    stage = FlowStage(AnchoredFlow(2, 3, DiTConfig(16, 1, 2)), [], TrainingConfig(), 1, 10)
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


@pytest.mark.parametrize("config", [DiTConfig(16, 1, 2), MLPConfig(width=16, depth=1)])
def test_the_flow_from_noise_goes_through_autocast(config: Any) -> None:
    flow = AnchoredFlow(2, 3, config)
    flow.part_ways()
    x, zero = torch.randn(4, 2, 3), torch.zeros(4)
    told = FlowCondition(x, x, zero, torch.ones(4) > 0, torch.zeros(4, dtype=torch.bool))
    with torch.autocast("cpu", torch.bfloat16):
        assert flow(x, zero + 0.5, told).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "rank", "device"),
    [
        ({"accelerator": "cpu"}, None, "cpu"),
        ({}, None, "cuda"),
        ({"devices": [1]}, None, "cuda:1"),
        ({"devices": [2, 3]}, "1", "cuda:3"),
        ({"devices": 4}, "3", "cuda:3"),
    ],
)
def test_what_is_beside_the_trainer_is_on_its_device(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], rank: str | None, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(device_of(arguments)) == device


def test_precision_asked_for_holds_beside_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert halves_on_cuda(trainer_defaults({}, "noise", half=True))
    assert not halves_on_cuda(trainer_defaults({"precision": "32-true"}, "noise", half=True))
    assert not halves_on_cuda(trainer_defaults({"accelerator": "cpu"}, "noise", half=True))
