"""New cells from noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.between import Between
from celldit.data.store import CellStore
from celldit.inference import request
from celldit.inference.batch import ConditionBatch
from celldit.inference.counterfactual import edit
from celldit.inference.new_cells import NewCells, as_cells
from celldit.inference.noise import uniforms
from celldit.inference.offsets.condition import condition_offsets
from celldit.inference.offsets.course import course_offsets
from celldit.inference.sampling import Sampling, filled_up
from celldit.inference.solver import SolverConfig
from celldit.inference.time.course_map import TIME_STREAM, CourseMap
from celldit.io.write import PredictedCells, concatenate
from celldit.training.trained import Trained

COMPOSITION_STREAM = 1 << 19
EDIT_STREAM = 1 << 48


def plan(
    trained: Trained,
    n_cells: int,
    *,
    perturbation: str | None,
    covariates: Mapping[str, str] | None,
    like: CellStore | None,
    dose: object,
    time: float | None,
    config: SolverConfig,
    seed: int,
    batch_size: int,
) -> Sampling:
    """Plan the generation of cells; see :meth:`celldit.CellDiT.generate` for the arguments."""
    trained.check_draws_new_cells()
    # Each cell draws its condition from its own stream, so more cells do not change the first.
    uniform_N = uniforms(np.arange(filled_up(n_cells)), seed, COMPOSITION_STREAM)
    sizes_N: np.ndarray | None = None
    options: list[Condition]
    if like is not None:
        table = ConditionTable.from_cells(like, trained.fields.perturbation_sep)
        chosen_N = (uniform_N * like.n_cells).astype(np.int64)
        options, row_N = list(table.conditions), table.index[chosen_N]
        sizes_N = like.size_factors[chosen_N]
    else:
        options, shares = request.composition(
            trained.frequencies, perturbation, covariates, trained.fields, dose, time
        )
        row_N = np.searchsorted(np.cumsum(shares), uniform_N).clip(max=len(options) - 1)
    request.warn_outside(options, trained.frequencies)
    # All options are looked up, drawn or not: the estimates must not depend on how many cells.
    requested = ConditionBatch.of_rows(trained, options, row_N)
    ends = _ends(trained, requested, seed)
    drawing = NewCells.of(trained, ends, config, seed, sizes_N)
    sample: Callable[[np.ndarray], PredictedCells] = drawing.draw
    if set(ends.conditions) - set(options):
        sample = _between(trained, drawing, requested, seed)
    obs = requested.obs(trained.fields, n_cells)
    obs.index = pd.Index([f"generated_{key}" for key in range(n_cells)], dtype=object)
    return Sampling(
        trained.genes,
        obs,
        trained.made_by(sampler="generate", seed=seed, **config.to_dict()),
        sample,
        batch_size,
    )


def _ends(trained: Trained, requested: ConditionBatch, seed: int) -> ConditionBatch:
    """The condition that each cell is drawn from: its own, or at a time of training next to it.

    Of the cells asked for at a time between two of training some start among those of the earlier
    and some among those of the later, the more the nearer it is in the progress of the course.
    """
    scale, known = trained.time_course.scale, trained.population.references
    between = Between.of(requested.conditions, known, scale)
    distinct = list(dict.fromkeys((*between.earlier, *between.later)))
    place = {condition: i for i, condition in enumerate(distinct)}
    earlier_N, later_N = (
        np.array([place[c] for c in ends], dtype=np.int64)[requested.row]
        for ends in (between.earlier, between.later)
    )
    uniform_N = uniforms(np.arange(len(requested.row)), seed, TIME_STREAM)
    row_N = np.where(uniform_N < between.share_Q[requested.row], later_N, earlier_N)
    return ConditionBatch.of_rows(trained, distinct, row_N)


def _between(
    trained: Trained, drawing: NewCells, requested: ConditionBatch, seed: int
) -> Callable[[np.ndarray], PredictedCells]:
    """New cells of times of training, sent on to the times that are asked for.

    Parameters
    ----------
    trained
        The model.
    drawing
        The cells, each at a time of training next to its own.
    requested
        The condition that each cell is to have.
    seed
        Of the drawn counts.
    """
    start, autoencoder = drawing.conditions, trained.autoencoder
    course = CourseMap(trained, start, requested, from_end=True, seed=seed)
    through_time = course_offsets(trained, start, requested, from_end=True)
    at_end = condition_offsets(trained, requested, SolverConfig())

    def sample(keys: np.ndarray) -> PredictedCells:
        drawn = drawing.draw(keys)
        start_B, end_B = start.row[keys], requested.row[keys]
        moves_B = np.array(
            [start.conditions[p] != requested.conditions[q]
             for p, q in zip(start_B, end_B, strict=True)]
        )  # fmt: skip
        if not moves_B.any():
            return drawn
        cells = as_cells(drawn, trained)
        z_BKD = autoencoder.encode(cells)
        moved_BKD = course(z_BKD, start_B, end_B, keys)
        offset_BG = through_time(start_B, end_B)
        if at_end is not None and drawing.offset is not None:
            offset_BG = offset_BG + at_end(end_B) - drawing.offset(start_B)
        # Streams of their own: those of the keys have drawn the counts that are edited.
        streams_B = keys + EDIT_STREAM
        moved = edit(autoencoder, cells, z_BKD, moved_BKD, streams_B, seed, offset_BG)
        return moved if moves_B.all() else _chosen(moves_B, moved, drawn)

    return sample


def _chosen(own_B: np.ndarray, first: PredictedCells, second: PredictedCells) -> PredictedCells:
    """Cells of the first where `own_B` says so, of the second elsewhere."""
    place_B = np.arange(len(own_B))
    return concatenate([first, second])[np.where(own_B, place_B, len(own_B) + place_B)]
