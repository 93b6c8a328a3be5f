"""Counterfactuals through noise: by inversion, or by the difference of two flows from the cell."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from celldit.arguments import check_whole
from celldit.errors import InputError
from celldit.flow import FlowEnd, Noise, edit_flow, resolve_grid
from celldit.flow.anchored import AnchoredFlow
from celldit.inference.noise import NoiseEnd
from celldit.inference.solver import SolverConfig, carry, velocity_of


@dataclass(frozen=True)
class EditConfig:
    """Settings of ``sampler="edit"``.

    Attributes
    ----------
    n_avg
        Draws of noise averaged at each step.
    t_start
        Flow time at which the edit starts, in [0, 1); later starts keep more of the cell and move
        less.

    Raises
    ------
    InputError
        If a number cannot be used.
    """

    n_avg: int = 4
    t_start: float = 0.0

    def __post_init__(self) -> None:
        check_whole(self.n_avg, "n_avg")
        if not (0 <= self.t_start < 1):
            raise InputError(f"t_start={self.t_start!r} must be in [0, 1); 0 is the source.")

    def to_dict(self) -> dict[str, Any]:
        """For ``uns``."""
        return asdict(self)


@torch.no_grad()
def flow_edit(
    flow: AnchoredFlow,
    z_BKD: Tensor,
    start: NoiseEnd,
    end: NoiseEnd,
    config: SolverConfig,
    edit: EditConfig,
    noise: Noise,
) -> Tensor:
    """Move cells by what the flow of another condition does beyond that of their own, (B, K, D).

    :func:`celldit.flow.edit_flow` from the noise source of each condition. Equal conditions give
    the cell back to the last bit. The noise is that of the cell in any batch.
    """
    flow.eval()
    device = flow.device
    own = velocity_of(flow, start.conditioning.to(device), replace(config, guidance=1.0))
    other = velocity_of(flow, end.conditioning.to(device), config)
    return edit_flow(
        FlowEnd(own, start.source.to(device)),
        FlowEnd(other, end.source.to(device)),
        z_BKD.to(device),
        resolve_grid(config.grid)(int(config.n_steps), float(edit.t_start), 1.0),
        noise,
        int(edit.n_avg),
    ).cpu()


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
