"""The maps from a cell to its counterfactual, behind one interface.

===============  =================================================================================
``transport``    from the cell moved by the estimated effect (the anchored source)
``inversion``    to the cell's noise under its own condition, and back under the other
``edit``         along the difference of the two conditions' flows, without inversion
===============  =================================================================================

Each moves the latent of cell *i* to that of cell *i*, gives it back under its own condition, and
goes only a share of the way from the effect model's prediction to the flow's: the weight that
cross-validation gave the network. An effect is counted from the controls at the time of its
condition, so a cell of another time goes there first, by one way for all
(:mod:`celldit.inference.time.course_map`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from celldit.errors import InputError, UnknownNameError
from celldit.flow import CellNoise
from celldit.inference.batch import ConditionBatch
from celldit.inference.maps.edit import EditConfig, flow_edit, invert
from celldit.inference.solver import SolverConfig, carry
from celldit.inference.time.course_map import CourseMap
from celldit.random import EDIT_STREAM
from celldit.training.trained import Trained

SAMPLERS = ("transport", "inversion", "edit")

TransportMap: TypeAlias = Callable[[Tensor, np.ndarray], Tensor]
"""``mapping(z_BKD, at_B)``: latents of the cells at positions `at_B` -> where they go."""

_Way: TypeAlias = Callable[[Tensor, np.ndarray], tuple[Tensor, Callable[[], Tensor]]]


@dataclass(frozen=True, eq=False)
class Route:
    """Cells on their way from one condition to another."""

    source: ConditionBatch  # own condition of each of N positions of the request
    target: ConditionBatch  # the one asked for
    keys: np.ndarray  # of the random numbers of each cell, the same wherever it goes


@dataclass(frozen=True)
class Sampler:
    """Which map, one of :data:`SAMPLERS`, takes a cell to its counterfactual, and its settings."""

    name: str = "transport"
    config: SolverConfig = field(default_factory=SolverConfig)
    edit: EditConfig = field(default_factory=EditConfig)

    @classmethod
    def of(cls, name: str, solver: str | None, edit: EditConfig | None, **settings: Any) -> Sampler:
        """Check what users say of it; `solver` and `settings` make a :class:`SolverConfig`.

        UnknownNameError if no sampler has the name; InputError if a setting does not belong to it.
        """
        if not isinstance(name, str) or name not in SAMPLERS:
            raise UnknownNameError.among("sampler", name, SAMPLERS)
        if solver is None:
            solver = "euler" if name == "edit" else "heun"
        config = SolverConfig(solver, **settings)
        if edit is not None and name != "edit":
            raise InputError(f'edit= is for sampler="edit", not {name!r}; leave it out.')
        if name == "edit" and solver != "euler":
            raise InputError(
                f'sampler="edit" takes Euler steps; use solver="euler" instead of {solver!r}.'
            )
        if solver == "sde":
            raise InputError(
                f'solver="sde" needs a flow from noise, and sampler={name!r} must be able to come '
                'back; use "heun", or generate(solver="sde").'
            )
        return cls(name, config, edit or EditConfig())

    def to_dict(self) -> dict[str, Any]:
        """For ``uns``."""
        averages = self.edit.to_dict() if self.name == "edit" else {}
        return {"sampler": self.name, **self.config.to_dict(), **averages}


def transport_map(trained: Trained, route: Route, sampler: Sampler, seed: int = 0) -> TransportMap:
    """The map that `sampler` names, for the cells of a route; `seed` is of the noise of "edit"."""
    source = at_time_of(trained, route.source, route.target)
    through_time = CourseMap(trained, route.source, source, seed=seed)
    way = _way_of(trained, replace(route, source=source), sampler, seed)

    def mapping(z_BKD: Tensor, at_B: np.ndarray) -> Tensor:
        z_BKD = through_time(z_BKD, route.source.row[at_B], source.row[at_B], route.keys[at_B])
        baseline_BKD, by_flow = way(z_BKD, at_B)
        weight_B = route.target.weight_Q[torch.from_numpy(route.target.row[at_B])]
        if not bool(weight_B.any()):
            return baseline_BKD
        # A cell whose weight is 0 or 1 gets one of the two exactly.
        return torch.lerp(baseline_BKD, by_flow(), weight_B[:, None, None])

    return mapping


def _way_of(trained: Trained, route: Route, sampler: Sampler, seed: int) -> _Way:
    """Where the effect model alone puts cells, and where the whole flow takes them."""
    flow, source, target, config = trained.flow, route.source, route.target, sampler.config

    def by_transport(z_BKD: Tensor, at_B: np.ndarray) -> tuple[Tensor, Callable[[], Tensor]]:
        conditioning = target.embedding.conditioning(target.row[at_B], from_noise=False)
        start_BKD = z_BKD + conditioning.effect_BKD
        return start_BKD, lambda: carry(flow, start_BKD, conditioning, config)

    if sampler.name == "transport":
        return by_transport
    sources, targets = source.sources(trained.states), target.sources(trained.states)

    def through_noise(z_BKD: Tensor, at_B: np.ndarray) -> tuple[Tensor, Callable[[], Tensor]]:
        source_B, target_B = source.row[at_B], target.row[at_B]
        at_source_BKD = sources.positions_QKD[torch.from_numpy(source_B)]
        at_target_BKD = targets.positions_QKD[torch.from_numpy(target_B)]
        baseline_BKD = z_BKD + (at_target_BKD - at_source_BKD)

        def by_flow() -> Tensor:
            # A cell stays in its state; in another context it takes the likeliest where it gets to.
            stays_B = [
                source.conditions[p].stratum == target.conditions[q].stratum
                for p, q in zip(source_B, target_B, strict=True)
            ]
            state_B = sources.nearest(source_B, z_BKD)
            start = sources.end(source.embedding, source_B, state_B)
            state_B = np.where(stays_B, state_B, targets.nearest(target_B, baseline_BKD))
            end = targets.end(target.embedding, target_B, state_B)
            if sampler.name == "inversion":
                return invert(flow, z_BKD, start, end, config)
            noise = CellNoise(torch.from_numpy(route.keys[at_B]), seed, EDIT_STREAM)
            return flow_edit(flow, z_BKD, start, end, config, sampler.edit, noise)

        return baseline_BKD, by_flow

    return through_noise


def at_time_of(trained: Trained, source: ConditionBatch, target: ConditionBatch) -> ConditionBatch:
    """The conditions in `source` of N positions at the times of those in `target`."""
    pairs = np.stack([source.row, target.row], axis=1)
    distinct, row = np.unique(pairs, axis=0, return_inverse=True)
    moved = []
    for p, q in distinct:
        own, other = source.conditions[p], target.conditions[q]
        moved.append(replace(own, time=other.time) if own.context == other.context else own)
    if all(c == source.conditions[p] for c, (p, _) in zip(moved, distinct, strict=True)):
        return source
    means = {**target.references, **source.references}
    return ConditionBatch.of(trained, [moved[i] for i in row.ravel()], means)
