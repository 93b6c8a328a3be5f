"""What predictions of training conditions hold of the network, for whatever is fitted to them.

A correction that is learned from predictions must see them as they will be made: the effect
model's, and on top of it the share of the network's displacement that is used. Learned from the
effect model's alone it repairs what the network repairs as well, and both together overshoot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from celldit.conditions import Condition
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
    contexts
        Contexts of training in their order.
    """

    flow: AnchoredFlow
    weight: Mapping[Extrapolation, float]
    contexts: tuple[str, ...]

    @torch.no_grad()
    def moved(
        self,
        before_NKD: Tensor,
        effect_F: np.ndarray,
        sd: float,
        condition: Condition,
        kind: Extrapolation | None,
    ) -> Tensor:
        """Where control cells go under an estimate of the effect, (N, K, D).

        Parameters
        ----------
        before_NKD
            Latents of controls.
        effect_F, sd
            The estimate, and the size of its standard deviation as the network reads it.
        condition, kind
            Where they go, and how far that is from what the estimate knows; None for another dose
            or time of what was seen.
        """
        shape = before_NKD.shape
        effect_KD = torch.from_numpy(effect_F.astype(np.float32)).view(shape[1:])
        start_NKD = before_NKD + effect_KD
        weight = self.weight.get(kind or Extrapolation.SEEN, 0.0)
        # What the parts of a condition are told belongs to the whole estimate, not to this one.
        if not weight or self.flow.reads_parts:
            return start_NKD
        known = self.contexts.index(condition.context) + 1 if self._knows(condition) else 0
        flags_N = torch.zeros(len(start_NKD), dtype=torch.bool)
        conditioning = FlowCondition(
            effect_KD.expand(shape),
            torch.zeros_like(start_NKD),
            torch.full((len(start_NKD),), sd),
            flags_N,
            flags_N,
            torch.full((len(start_NKD),), known),
        )
        self.flow.eval()
        velocity = partial(self.flow, condition=conditioning)
        end_NKD = resolve_solver("heun").solve(velocity, start_NKD, uniform_grid(N_STEPS))
        return torch.lerp(start_NKD, end_NKD, weight)

    def _knows(self, condition: Condition) -> bool:
        return condition.context in self.contexts
