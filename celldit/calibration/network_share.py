"""What predictions of training conditions hold of the network, for whatever is fitted to them.

A correction that is learned from predictions must see them as they will be made: learned from the
effect model's alone it repairs what the network repairs as well, and both together overshoot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.extrapolation import Extrapolation
from celldit.flow import resolve_solver, uniform_grid
from celldit.flow.anchored import AnchoredFlow, FlowCondition

N_STEPS = 4


@dataclass(frozen=True, eq=False)
class NetworkShare:
    """The trained network and how much of it is used.

    Attributes
    ----------
    flow
        The network.
    weight
        Share of its displacement for each kind of extrapolation.
    """

    flow: AnchoredFlow
    weight: Mapping[Extrapolation, float]

    @torch.no_grad()
    def moved(
        self,
        before_NKD: Tensor,
        effect_F: np.ndarray,
        sd: float,
        kind: Extrapolation | None,
    ) -> Tensor:
        """Where control cells go under an estimate of the effect, (N, K, D).

        Parameters
        ----------
        before_NKD
            Latents of controls.
        effect_F, sd
            The estimate, and the size of its standard deviation as the network reads it.
        kind
            How far the condition is from what the estimate knows; None for another dose or time of
            what was seen.
        """
        shape = before_NKD.shape
        effect_KD = torch.from_numpy(effect_F.astype(np.float32)).view(shape[1:])
        start_NKD = before_NKD + effect_KD
        weight = self.weight.get(kind or Extrapolation.SEEN, 0.0)
        if not weight:
            return start_NKD
        flags_N = torch.zeros(len(start_NKD), dtype=torch.bool)
        conditioning = FlowCondition(
            effect_KD.expand(shape),
            torch.zeros_like(start_NKD),
            torch.full((len(start_NKD),), sd),
            flags_N,
            flags_N,
        )
        self.flow.eval()
        velocity = partial(self.flow, condition=conditioning)
        end_NKD = resolve_solver("heun").solve(velocity, start_NKD, uniform_grid(N_STEPS))
        return torch.lerp(start_NKD, end_NKD, weight)
