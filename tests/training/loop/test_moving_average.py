"""The moving average is torch's, without waiting for the device."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from celldit.training.loop.moving_average import MovingAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))


def step(of: nn.Module, i: int) -> None:
    draw = torch.Generator().manual_seed(i)
    with torch.no_grad():
        for tensor in of.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=draw))


def test_it_is_what_torch_averages() -> None:
    followed = network()
    own = MovingAverage(followed, 0.9)
    of_torch = AveragedModel(followed, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for i in range(4):
        step(followed, i)
        own.update(followed)
        of_torch.update_parameters(followed)
        for name, value in of_torch.module.state_dict().items():
            assert torch.equal(own.module.state_dict()[name], value), name
        assert own.n_averaged == int(of_torch.n_averaged)
    assert not any(weight.requires_grad for weight in own.parameters())


def test_it_goes_on_from_a_state() -> None:
    followed = network()
    whole, first = MovingAverage(followed, 0.9), MovingAverage(followed, 0.9)
    step(followed, 0)
    whole.update(followed), first.update(followed)
    again = MovingAverage(network(), 0.9)
    again.load_state_dict(first.state_dict())
    step(followed, 1)
    whole.update(followed), again.update(followed)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_keeps_its_names_and_copies_after_a_step() -> None:
    followed = network()
    own = MovingAverage(followed, 0.9)
    names = list(own.state_dict())
    step(followed, 0)
    own.update(followed)
    assert list(own.state_dict()) == names
    again = copy.deepcopy(own)
    step(followed, 1)
    own.update(followed), again.update(followed)
    for a, b in zip(own.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a is not b


def test_weights_are_searched_for_once_and_anew_in_another_network(monkeypatch) -> None:
    """To search a small network takes longer than to average it."""
    followed, other = network(), network()
    step(other, 7)
    own = MovingAverage(followed, 0.9)
    own.update(followed)
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "parameters", None)
        own.update(followed)
    before = [weight.clone() for weight in own.parameters()]
    own.update(other)
    for old, new, now in zip(before, other.parameters(), own.parameters(), strict=True):
        assert torch.equal(now, torch.lerp(old, new, 1 - 0.9))
