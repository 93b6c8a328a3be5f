"""The roads from a cell to its counterfactual, behind one interface.

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
from celldit.flow.draws import CellNoise
from celldit.inference.batch import ConditionBatch
from celldit.inference.edit import EditConfig, flow_edit
from celldit.inference.inversion import invert
from celldit.inference.solver import SolverConfig, transport
from celldit.inference.time.course_map import CourseMap
from celldit.random import EDIT_STREAM
from celldit.training.trained import Trained

SAMPLERS = ("transport", "inversion", "edit")

TransportMap: TypeAlias = Callable[[Tensor, np.ndarray], Tensor]
"""``road(z_BKD, at_B)``: latents of the cells at positions `at_B` -> where they go."""

_Way: TypeAlias = Callable[[Tensor, np.ndarray, np.ndarray, Tensor], Tensor]
"""``way(z_BKD, at_B, keys_B, share_B)``: the same for cells with keys of their own, each going a
share of the way from the prior's prediction to the flow's."""


@dataclass(frozen=True, eq=False)
class Route:
    """Cells on their way from one condition to another.

    Attributes
    ----------
    source, target
        Own condition, and the one asked for, of each of N positions of the request.
    keys
        Of the random numbers of the cell at each position, the same wherever it goes.
    weight_Q
        Share of the network's displacement to use for each of the conditions in `target`.
    """

    source: ConditionBatch
    target: ConditionBatch
    keys: np.ndarray
    weight_Q: Tensor


@dataclass(frozen=True)
class Sampler:
    """Which map takes a cell to its counterfactual, and its settings.

    Attributes
    ----------
    name
        One of :data:`SAMPLERS`.
    config
        Of the solver.
    edit
        Averages and start of ``"edit"``.
    """

    name: str = "transport"
    config: SolverConfig = field(default_factory=SolverConfig)
    edit: EditConfig = field(default_factory=EditConfig)

    @classmethod
    def of(cls, name: str, solver: str | None, edit: EditConfig | None, **settings: Any) -> Sampler:
        """Check what users say of it; `solver` and `settings` make a :class:`SolverConfig`.

        Raises
        ------
        UnknownNameError
            If no sampler has the name.
        InputError
            If a setting does not belong to it.
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
    """The map that `sampler` names, for the cells of a route.

    Parameters
    ----------
    trained
        The model.
    route
        Who goes where.
    sampler
        Which map.
    seed
        Of the noise of ``"edit"``.
    """
    in_time = at_time_of(trained, route.source, route.target)
    course = CourseMap(trained, route.source, in_time, seed=seed)
    move = _whole_way(trained, replace(route, source=in_time), sampler, seed)

    def weighted_way(z_BKD: Tensor, at_B: np.ndarray) -> Tensor:
        keys_B = route.keys[at_B]
        z_BKD = course(z_BKD, route.source.row[at_B], in_time.row[at_B], keys_B)
        row_B = torch.from_numpy(route.target.row[at_B])
        return move(z_BKD, at_B, keys_B, route.weight_Q[row_B])

    return weighted_way


def at_time_of(trained: Trained, source: ConditionBatch, target: ConditionBatch) -> ConditionBatch:
    """The conditions in `source` of N positions at the times of those in `target`."""
    pairs = np.stack([source.row, target.row], axis=1)
    distinct, row = np.unique(pairs, axis=0, return_inverse=True)
    moved = [
        replace(source.conditions[p], time=target.conditions[q].time)
        if source.conditions[p].context == target.conditions[q].context
        else source.conditions[p]
        for p, q in distinct
    ]
    if moved == source.conditions:
        return source
    found = list(dict.fromkeys(moved))
    place = np.array([found.index(c) for c in moved], dtype=np.int64)
    means = {**target.references, **source.references}
    return ConditionBatch.of_rows(trained, found, place[row.ravel()], means)


def _whole_way(trained: Trained, route: Route, sampler: Sampler, seed: int) -> _Way:
    flow, source, target = trained.flow, route.source, route.target
    config = sampler.config
    if sampler.name == "transport":

        def by_transport(z_BKD: Tensor, at_B: np.ndarray, _: np.ndarray, share_B: Tensor) -> Tensor:
            conditioning = target.embedding.conditioning(target.row[at_B], from_noise=False)
            return transport(flow, z_BKD + conditioning.effect_BKD, conditioning, share_B, config)

        return by_transport
    noise_sources = source.sources(trained.states)
    noise_targets = target.sources(trained.states)
    same_place = np.array(
        [[a.stratum == b.stratum for b in target.conditions] for a in source.conditions]
    )

    def through_noise(
        z_BKD: Tensor, at_B: np.ndarray, keys_B: np.ndarray, share_B: Tensor
    ) -> Tensor:
        row_source, row_target = source.row[at_B], target.row[at_B]
        shift_BKD = noise_targets.positions_of(row_target) - noise_sources.positions_of(row_source)
        # A cell stays in its state; in another context it takes the likeliest where it gets to.
        state_source = noise_sources.nearest(row_source, z_BKD)
        state_target = np.where(
            same_place[row_source, row_target],
            state_source,
            noise_targets.nearest(row_target, z_BKD + shift_BKD),
        )
        noise_source = noise_sources.rows(row_source, state_source)
        noise_target = noise_targets.rows(row_target, state_target)
        ends = (
            z_BKD + shift_BKD,
            noise_source.conditioning(source.embedding, row_source),
            noise_target.conditioning(target.embedding, row_target),
            noise_source,
            noise_target,
            share_B,
        )
        if sampler.name == "inversion":
            return invert(flow, z_BKD, *ends, config)
        noise = CellNoise(torch.from_numpy(keys_B), seed, EDIT_STREAM)
        return flow_edit(flow, z_BKD, *ends, config, sampler.edit, noise)

    return through_noise
