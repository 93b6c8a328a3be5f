"""Run the flow: settings of the solver, and displacement with trust."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from celldit.errors import InputError
from celldit.flow import GuidedVelocity, resolve_solver, uniform_grid
from celldit.flow.anchored import AnchoredFlow, FlowCondition


@dataclass(frozen=True)
class SolverConfig:
    """How the flow is integrated.

    Attributes
    ----------
    solver
        ``"euler"``, ``"heun"``, ``"midpoint"``, ``"rk4"`` or ``"dopri5"``.
    n_steps
        Steps of a fixed-step solver.
    guidance
        Scale of joint classifier-free guidance; 1 is none.
    """

    solver: str = "heun"
    n_steps: int = 8
    guidance: float = 1.0

    def __post_init__(self) -> None:
        resolve_solver(self.solver)
        if isinstance(self.n_steps, bool) or int(self.n_steps) != self.n_steps or self.n_steps < 1:
            raise InputError(f"n_steps={self.n_steps!r} must be a whole number of at least 1.")
        if not (0 <= self.guidance < float("inf")):
            raise InputError(f"guidance={self.guidance!r} must be a number of at least 0.")

    def to_dict(self) -> dict[str, Any]:
        """For ``uns``."""
        return asdict(self)


@torch.no_grad()
def transport(
    flow: AnchoredFlow,
    x0_BKD: Tensor,
    condition: FlowCondition,
    trust_B: Tensor,
    config: SolverConfig,
) -> Tensor:
    """Carry the source to the data, trusting only a share of the flow's displacement.

    Parameters
    ----------
    flow
        The velocity network.
    x0_BKD
        Start points.
    condition
        What the network is told.
    trust_B
        Share λ of the displacement for each cell; 0 leaves the start, which is the baseline.
    config
        Solver, steps and guidance.

    Returns
    -------
    Tensor
        ``x0 + λ (flow(x0) - x0)``, shape (B, K, D), on the CPU.
    """
    device = next(flow.parameters()).device
    flow.eval()
    told, start = condition.to(device), x0_BKD.to(device)

    def conditional(x: Tensor, t: Tensor) -> Tensor:
        return flow(x, t, told)

    velocity = conditional
    if config.guidance != 1:
        withheld = told.withheld()
        velocity = GuidedVelocity(
            conditional, lambda x, t: flow(x, t, withheld), scale=config.guidance
        )
    end = resolve_solver(config.solver).solve(velocity, start, uniform_grid(config.n_steps))
    share_B11 = trust_B.to(device)[:, None, None]
    return (start + share_B11 * (end - start)).cpu()
