"""Counterfactuals by inversion: a cell back to its noise, then out under another condition."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from celldit.flow.anchored import AnchoredFlow
from celldit.inference.noise import NoiseEnd
from celldit.inference.solver import SolverConfig, carry


@torch.no_grad()
def invert(
    flow: AnchoredFlow, z_BKD: Tensor, start: NoiseEnd, end: NoiseEnd, config: SolverConfig
) -> Tensor:
    """Move cells from one condition to another through the noise that explains them, (B, K, D).

    The flow of the cell's own condition is run backward to the noise ε of the cell; the same ε
    starts the flow of the other condition, which alone is guided. Both ends of the backward run are
    known, so the error that the solver makes there is run forward once more and taken off: equal
    conditions give the cell back to the last bit. (DDIM inversion, Song et al. 2021, in its
    rectified-flow form.)
    """
    plain = replace(config, guidance=1.0)
    x0_BKD = carry(flow, z_BKD, start.conditioning, plain, backward=True)
    noise_BKD = start.source.noise_of(x0_BKD)
    moved_BKD = carry(flow, end.source(noise_BKD), end.conditioning, config)
    again_BKD = carry(flow, start.source(noise_BKD), start.conditioning, plain)
    return z_BKD + (moved_BKD - again_BKD)
