"""Run the flow, and the settings of that: of the solver, and of what every request samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from celldit.arguments import check_number, check_seed, check_whole
from celldit.errors import InputError
from celldit.flow import GuidedVelocity, Solver, Velocity, resolve_grid, resolve_solver
from celldit.flow.anchored import AnchoredFlow, FlowCondition, matched_velocity, spread
from celldit.training.trained import Trained


@dataclass(frozen=True)
class SolverConfig:
    """How the flow is integrated.

    InputError if a number cannot be used; UnknownNameError if no solver or grid has that name.
    """

    solver: str = "heun"  # "euler", "heun", "rk4", or "sde" (from noise only)
    n_steps: int = 8
    guidance: float = 1.0  # scale of classifier-free guidance; 1 is none
    guidance_interval: tuple[float, float] = (0.0, 1.0)  # flow times at which it acts
    grid: str = "uniform"  # how the steps are spread: "uniform", "quadratic" or "cosine"

    def __post_init__(self) -> None:
        if not (isinstance(self.solver, str) and self.solver == "sde"):
            resolve_solver(self.solver)
        resolve_grid(self.grid)
        check_whole(self.n_steps, "n_steps")
        check_number(self.guidance, "guidance")
        given: object = self.guidance_interval
        interval = tuple(given) if isinstance(given, Iterable) else ()
        pair = len(interval) == 2 and all(isinstance(end, Real) for end in interval)
        if not pair or not (0 <= interval[0] <= interval[1] <= 1):
            raise InputError(
                f"guidance_interval={self.guidance_interval!r} must be two flow times with "
                "0 <= lo <= hi <= 1, such as (0.2, 0.8)."
            )

    @property
    def times(self) -> Tensor:
        """Flow times from source to data, shape (n_steps + 1,)."""
        return resolve_grid(self.grid)(int(self.n_steps), 0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """For ``uns``."""
        return {**asdict(self), "guidance_interval": list(self.guidance_interval)}


@dataclass(frozen=True)
class SamplingOptions:
    """How cells are sampled, whatever is asked; InputError if a number cannot be used."""

    config: SolverConfig = field(default_factory=SolverConfig)
    seed: int = 0  # of everything drawn
    batch_size: int = 512  # cells handed on at a time

    def __post_init__(self) -> None:
        check_whole(self.batch_size, "batch_size")
        check_seed(self.seed)

    def usable_by(self, trained: Trained) -> SamplingOptions:
        """Themselves; InputError if there is guidance, and training withheld no conditions."""
        withheld = trained.trained_with.get("config", {}).get("drop_condition", 0)
        guidance = self.config.guidance
        if guidance != 1 and not withheld:
            raise InputError(
                f"guidance={guidance:g} needs a model trained with conditions withheld; "
                "train with config=TrainingConfig(drop_condition=0.1), or use guidance=1."
            )
        return self


def velocity_of(flow: AnchoredFlow, conditioning: FlowCondition, config: SolverConfig) -> Velocity:
    """The network under a condition as a field ``velocity(x, t)``, guided where that is asked."""

    def conditional(x: Tensor, t: Tensor) -> Tensor:
        return flow(x, t, conditioning)

    if config.guidance == 1:
        return conditional
    withheld = conditioning.withheld()
    return GuidedVelocity(
        conditional,
        lambda x, t: flow(x, t, withheld),
        scale=config.guidance,
        interval=config.guidance_interval,
    )


@torch.no_grad()
def carry(
    flow: AnchoredFlow,
    x_BKD: Tensor,
    condition: FlowCondition,
    config: SolverConfig,
    *,
    backward: bool = False,
    solver: Solver | None = None,
) -> Tensor:
    """Carry states from the source (t = 0) to the data, or back; (B, K, D), on the CPU.

    A `solver` is used in place of the one that `config` names, as for "sde", which needs its
    source.
    """
    device = flow.device
    flow.eval()
    conditioning = condition.to(device)
    velocity = velocity_of(flow, conditioning, config)
    times_T = config.times.flip(0) if backward else config.times
    if solver is None and flow.from_noise is not None and bool(conditioning.from_noise_B.all()):
        position_BKD = conditioning.position_BKD
        beside = Beside(velocity, position_BKD)
        start_BKD = x_BKD.to(device) - position_BKD
        moved_BKD = resolve_solver(config.solver).solve(beside, start_BKD, times_T)
        return (position_BKD + moved_BKD).cpu()
    solver = solver or resolve_solver(config.solver)
    return solver.solve(velocity, x_BKD.to(device), times_T).cpu()


@dataclass(frozen=True, eq=False)
class Beside:
    """A flow from noise beside its anchor: motion of ``(x - position) / spread(t)``.

    The anchor contracts and spreads cells without moving them in the end. In these variables it
    stands still, so that steps are spent on what was learned: an untrained flow gives its start
    back whatever the number of steps. Both ends have spread 1. Positions are means of the sources.
    """

    velocity: Velocity
    position_BKD: Tensor

    def __call__(self, y_BKD: Tensor, t_B: Tensor) -> Tensor:
        """Velocity of y."""
        spread_B11 = spread(t_B)[:, None, None]
        x_BKD = self.position_BKD + spread_B11 * y_BKD
        velocity_BKD = self.velocity(x_BKD, t_B)
        anchor_BKD = matched_velocity(x_BKD, t_B, self.position_BKD)
        return (velocity_BKD - anchor_BKD) / spread_B11
