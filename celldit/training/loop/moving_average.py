"""An exponential moving average of weights that never makes a GPU wait."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """A copy of a network whose weights follow those of the network; its buffers are constants.

    The first update takes the weights as they are, each later one a share ``1 - decay`` of them. It
    is what torch's ``AveragedModel`` does with ``get_ema_multi_avg_fn``, which asks the device at
    each update whether it is the first, and so waits until all work that is under way is done.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.decay, self.n_averaged = decay, 0
        # In a tuple, so that the network followed is no part of this one.
        self._found: tuple[nn.Module, list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Follow the weights of the network by one step."""
        # To search a small network takes longer than to average it, and from the first step on
        # its weights stay the tensors that they are, as every optimiser relies on.
        if self._found is None or self._found[0] is not network:
            self._found = network, list(self.module.parameters()), list(network.parameters())
        _, average, now = self._found
        if self.n_averaged:
            torch._foreach_lerp_(average, now, 1 - self.decay)
        else:
            for own, new in zip(average, now, strict=True):
                own.copy_(new)
        self.n_averaged += 1

    def get_extra_state(self) -> int:
        """What a checkpoint keeps beside the weights."""
        return self.n_averaged

    def set_extra_state(self, state: int) -> None:
        """Go on from a checkpoint."""
        self.n_averaged = state
