"""An exponential moving average of weights that never makes a GPU wait."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """A copy of a network whose weights follow those of the network.

    The first update takes the weights as they are, each later one a share of them. It is what
    torch's ``AveragedModel`` does with ``get_ema_multi_avg_fn``, which asks the device at each
    update whether it is the first, and so waits until all work that is under way is done.

    Parameters
    ----------
    network
        What is to be averaged; it is copied.
    decay
        Share of the average that an update keeps.

    Attributes
    ----------
    module
        The average.
    """

    n_averaged: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("n_averaged", torch.tensor(0, dtype=torch.long))
        self._begun = False
        self._followed: _Followed | None = None
        self.register_load_state_dict_post_hook(_remember_whether_begun)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Follow the weights of the network by one step; buffers are taken as they are."""
        if self._followed is None or self._followed.network is not network:
            self._followed = _Followed.by(self.module, network)
        average, now = self._followed.average, self._followed.now
        if self._begun:
            torch._foreach_lerp_(average, now, 1 - self.decay)
        else:
            for own, new in zip(average, now, strict=True):
                own.copy_(new)
        for averaged, followed in self._followed.with_buffers:
            buffers = averaged.buffers(recurse=False), followed.buffers(recurse=False)
            for own, new in zip(*buffers, strict=True):
                own.copy_(new)
        self.n_averaged += 1
        self._begun = True


@dataclass(frozen=True)
class _Followed:
    """What is averaged, found once: to search a small network took longer than to average it.

    Weights stay the tensors that they are from the first step on, as every optimiser relies on.
    Buffers do not when a network moves, so their layers are kept.
    """

    network: nn.Module
    average: list[Tensor]
    now: list[Tensor]
    with_buffers: list[tuple[nn.Module, nn.Module]]

    @classmethod
    def by(cls, average: nn.Module, network: nn.Module) -> _Followed:
        pairs = zip(average.modules(), network.modules(), strict=True)
        return cls(
            network,
            list(average.parameters()),
            list(network.parameters()),
            [pair for pair in pairs if any(True for _ in pair[1].buffers(recurse=False))],
        )


def _remember_whether_begun(average: MovingAverage, _: object) -> None:
    average._begun = bool(average.n_averaged > 0)
    average._followed = None  # a state may come with tensors of its own
