"""Counterfactuals by inversion: a cell back to its noise, then out under another condition."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.inference.noise import NoiseSource
from celldit.inference.solver import SolverConfig, carry, weighted


@torch.no_grad()
def invert(
    flow: AnchoredFlow,
    z_BKD: Tensor,
    baseline_BKD: Tensor,
    source: FlowCondition,
    target: FlowCondition,
    noise_source: NoiseSource,
    noise_target: NoiseSource,
    weight_B: Tensor,
    config: SolverConfig,
) -> Tensor:
    """Move cells from one condition to another through the noise that explains them.

    The flow of the cell's own condition is run backward to the noise ε of the cell; the same ε
    starts the flow of the other condition. Both ends of the backward run are known, so the error
    that the solver makes there is run forward once more and taken off: equal conditions give the
    cell back to the last bit. (DDIM inversion, Song et al. 2021, in its rectified-flow form.)

    Parameters
    ----------
    flow
        The velocity network.
    z_BKD, baseline_BKD
        Cells in the latent, and where the effect prior alone puts them.
    source, target
        What the network is told of their own condition and of the other, both from noise.
    noise_source, noise_target
        Where the flows of both start.
    weight_B
        Share λ of the way from the baseline to what the flow says.
    config
        Solver, steps and grid; guidance acts under the other condition only.

    Returns
    -------
    Tensor
        Shape (B, K, D); cell i in is cell i out.
    """
    if not bool(weight_B.any()):
        return baseline_BKD
    plain = replace(config, guidance=1.0)
    x0_BKD = carry(flow, z_BKD, source, plain, backward=True)
    x0_target_BKD = noise_target(noise_source.noise_of(x0_BKD))
    x0_source_BKD = noise_source(noise_source.noise_of(x0_BKD))
    moved_BKD = carry(flow, x0_target_BKD, target, config)
    again_BKD = carry(flow, x0_source_BKD, source, plain)
    return weighted(baseline_BKD, z_BKD + (moved_BKD - again_BKD), weight_B)
