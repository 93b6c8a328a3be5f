"""What is added to the log rates of cells, so that their means are where they are known to be.

What brings a condition to its mean (:mod:`celldit.calibration.means`), or controls from one time to
another (:class:`~celldit.calibration.temporal_means.TemporalMeans`), belongs to conditions and
times and not to the cells that are passed. So it is found from the cells that stand in for controls
(:mod:`celldit.calibration.reference_controls`), sent the same way. What decoded rates make of a way
through time falls short where counts are few, since what an autoencoder makes of a cell holds that
cell's own noise; perturbed cells get what controls get.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.means import ResidualEffect
from celldit.calibration.own_gene.kept import Split
from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.inference.batch import BLOCK, ConditionBatch, blocks_of
from celldit.inference.maps.transport import Route, Sampler, transport_map
from celldit.inference.noise import uniforms
from celldit.inference.solver import SolverConfig
from celldit.inference.time.course_map import CourseMap
from celldit.random import OWN_GENE_STREAM
from celldit.training.trained import Trained

Offset: TypeAlias = Callable[[np.ndarray], Tensor]
"""``offset(at_B)``: what is added to log rates, (B, G), by positions or rows of a batch."""

RowOffset: TypeAlias = Callable[[np.ndarray, np.ndarray | None], Tensor]
"""``offset(row_B, uniform_BX)``: the same by rows of a batch and numbers of :func:`own_uniforms`;
without them all cells of a condition lose their gene alike."""

RouteOffset: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray | None], Tensor]
"""``offset(source_B, target_B, uniform_BX)``: the same by rows of two batches."""

# Conditions whose correction is kept at hand; cells come perturbation by perturbation, in contexts
# that may alternate.
KEPT_OFFSETS = 256


def route_offsets(
    trained: Trained,
    source: ConditionBatch,
    target: ConditionBatch,
    config: SolverConfig,
    *,
    from_end: bool = False,
) -> RouteOffset | None:
    """The controls' course from the one time to the other, and what differs of the conditions.

    By rows of `source`, the conditions that cells have, and `target`, those that they are sent to;
    None for nothing. `from_end` is as in :class:`~celldit.inference.time.course_map.CourseMap`.
    """
    of_source, of_target = (condition_offsets(trained, one, config) for one in (source, target))
    if of_target is None and not trained.temporal_means.means:
        return None

    @cache
    def through_time(start: StratumKey, end: StratumKey) -> Tensor:
        return _course_offset(trained, start, end, from_end=from_end)

    def offset(source_B: np.ndarray, target_B: np.ndarray, uniform_BX: np.ndarray | None) -> Tensor:
        pairs = zip(source_B, target_B, strict=True)
        ends = ((source.conditions[p].stratum, target.conditions[q].stratum) for p, q in pairs)
        found_BG = torch.stack([through_time(*pair) for pair in ends])
        if of_source is None or of_target is None:
            return found_BG
        return found_BG + of_target(target_B, uniform_BX) - of_source(source_B, None)

    return offset


def by_position(
    offset: RouteOffset | None,
    source: ConditionBatch,
    target: ConditionBatch,
    uniform_PX: np.ndarray | None = None,
) -> Offset | None:
    """The same by positions of a request, at which `source` and `target` have their rows."""
    if offset is None:
        return None

    def at_positions(at_B: np.ndarray) -> Tensor:
        uniform_BX = None if uniform_PX is None else uniform_PX[at_B]
        return offset(source.row[at_B], target.row[at_B], uniform_BX)

    return at_positions


def own_uniforms(
    trained: Trained, conditions: Sequence[Condition], keys_B: np.ndarray, seed: int
) -> np.ndarray | None:
    """Numbers that say which cells keep the gene of each part of a perturbation, (B, X).

    `keys_B` are of cells under their conditions; None where no cells are known to keep theirs.
    """
    n_parts = max((len(c.parts) for c in conditions), default=0)
    if n_parts == 0 or not trained.mean_calibration.own_genes.some_kept:
        return None
    of_parts = [uniforms(keys_B, seed, OWN_GENE_STREAM + part) for part in range(n_parts)]
    return np.stack(of_parts, axis=1)


def condition_offsets(
    trained: Trained, target: ConditionBatch, config: SolverConfig, *, new_cells: bool = False
) -> RowOffset | None:
    """What brings the conditions in `target` to their mean, by their rows; None for nothing.

    Stand-ins are sent by transport, whichever map cells take. What was seen in few cells is
    followed as far as these tell, and offsets are for the cells that respond where some do not
    (:mod:`celldit.inference.responders`). `new_cells` follow the mean all the way, all of them: the
    states that they are drawn from hold those that did not respond.
    """
    if trained.mean_calibration.is_none and not trained.elsewhere:
        return None
    conditions, extrapolations = target.conditions, target.extrapolations(trained)
    rows = np.arange(len(conditions))
    controls = ConditionBatch.of_rows(trained, [c.control() for c in conditions], rows)
    route = Route(controls, replace(target, row=rows), rows)
    by_transport = transport_map(trained, route, Sampler(config=config))
    references = trained.reference_controls
    shares = trained.mean_calibration.shares
    effects_QF = target.embedding.effects_QKD.flatten(1).double().numpy()
    n_strata = len({c.stratum for c in conditions})
    blocks = blocks_of(trained, conditions)
    place = {q: (i, at) for i, block in enumerate(blocks) for at, q in enumerate(block.tolist())}

    @lru_cache(maxsize=2 + 2 * n_strata // BLOCK)
    def residual_effects(block: int) -> list[ResidualEffect]:
        some = [conditions[q] for q in blocks[block]]
        found = trained.mean_calibration.residual_effects(
            trained.population.prior, trained.genes, some, target.references
        )
        return [one._replace(noise=0.0) for one in found] if new_cells else found

    @lru_cache(maxsize=max(KEPT_OFFSETS, 2 * n_strata))
    def of_condition(q: int) -> tuple[Tensor, list[Split]]:
        if conditions[q].is_control:
            return torch.zeros(len(trained.genes)), []
        stratum = conditions[q].stratum
        own = references.of(stratum, target.references.get(stratum))
        moved_NKD = by_transport(own.z_NKD, np.full(len(own.z_NKD), q))
        responding = shares.get(conditions[q].parts, 1.0)
        share, further = 1.0 if new_cells else responding, None
        if share < 1:
            further = own.change(own.z_NKD + (moved_NKD - own.z_NKD) / share)
        block, at = place[q]
        change, residual = own.change(moved_NKD), residual_effects(block)[at]
        found_G = trained.mean_calibration.offset(
            extrapolations[q],
            change,
            effects_QF[q],
            residual,
            known=references.responses.knows(stratum),
            share=share,
            further=further,
        )
        of_those = change if further is None else further
        # States of new cells hold those that keep the gene, as well, where cells lie apart.
        apart = new_cells and responding < 1
        targets = () if apart else residual.targets
        splits = (target.split(found_G, of_those, share) for target in targets)
        return torch.from_numpy(found_G.astype(np.float32)), [s for s in splits if s is not None]

    def offset(row_B: np.ndarray, uniform_BX: np.ndarray | None) -> Tensor:
        each = [of_condition(q) for q in row_B.tolist()]
        found_BG = torch.stack([found_G for found_G, _ in each])
        if uniform_BX is not None:
            for found_G, (_, splits), uniform_X in zip(found_BG, each, uniform_BX, strict=True):
                for split in splits:
                    keeps = uniform_X[split.part] < split.kept
                    found_G[split.gene] = split.log_kept if keeps else split.log_lost
        return found_BG

    return offset


def _course_offset(
    trained: Trained, start: StratumKey, end: StratumKey, *, from_end: bool
) -> Tensor:
    """What gives controls the change of mean log expression between two times of a context, (G,).

    Nothing where the mean at the start was not measured. New cells that stay behind, or ahead, by
    what cells do not go themselves leave that to those of the other end; together they have the
    mean of the course.
    """
    course, means = trained.time_course, trained.temporal_means
    if not means.knows(start, end):
        return torch.zeros(len(trained.genes))
    references = trained.reference_controls.of(start)
    keys = np.arange(len(references.z_NKD))
    first, last = (
        ConditionBatch.of_rows(trained, [Condition(context=context, time=time)], 0 * keys)
        for context, time in (start, end)
    )
    through_time = CourseMap(trained, first, last, from_end)
    change = references.change(through_time(references.z_NKD, 0 * keys, 0 * keys, keys))
    before_G, wanted_G = means.mean(start, course.scale), means.mean(end, course.scale)
    wanted_G = wanted_G - before_G
    if from_end and course.displacement < 1:
        line_G = means.line(end, course.scale) - before_G
        wanted_G = course.displacement * line_G + (wanted_G - line_G)
    return torch.from_numpy(change.offset(wanted_G.astype(np.float32)).astype(np.float32))
