"""New cells from noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_whole
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.time_scale import bracketing
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.inference import request
from celldit.inference.batch import ConditionBatch
from celldit.inference.edits import edit, n_unlike
from celldit.inference.new_cells import NewCells, as_cells
from celldit.inference.noise import uniforms
from celldit.inference.offsets import route_offsets
from celldit.inference.solver import SamplingOptions, SolverConfig
from celldit.inference.time.course_map import CourseMap
from celldit.io.sampling import PredictedCells, Sampling, concatenate
from celldit.io.shards import Output
from celldit.random import COMPOSITION_STREAM, MOVED_STREAM, TIME_STREAM, keys_of
from celldit.training.trained import Trained


@dataclass(frozen=True)
class NewCellRequest:
    """Which new cells; see :meth:`celldit.CellDiT.generate`.

    Conditions that are None stand for all, as they occur in training.
    """

    n_cells: int
    perturbation: str | None = None
    covariates: Mapping[str, str] | None = None
    dose: object = None
    time: float | None = None

    def __post_init__(self) -> None:
        check_whole(self.n_cells, "n_cells")

    def check_like(self, like: object) -> None:
        """Refuse conditions beside data to follow."""
        said = self.perturbation, self.covariates, self.dose, self.time
        if like is not None and any(value is not None for value in said):
            raise InputError("like= says what to generate; leave out the other conditions.")


def generate(
    trained: Trained,
    requested: NewCellRequest,
    like: CellStore | None,
    options: SamplingOptions,
    output: Output,
) -> ad.AnnData:
    """Generate new cells; see :meth:`celldit.CellDiT.generate`.

    Conditions and library sizes are drawn from the cells `like`, where there are any.
    """
    trained.check_draws_new_cells()
    n_cells = int(requested.n_cells)
    names = [f"generated_{i}" for i in range(n_cells)]
    cells_N = keys_of(names)
    # Each cell draws its condition by its own key, so more cells do not change the first.
    uniform_N = uniforms(cells_N, options.seed, COMPOSITION_STREAM)
    conditions, row_N, sizes_N = _conditions(trained, requested, like, uniform_N)
    request.warn_outside(conditions, trained.frequencies)
    batch = ConditionBatch.of_rows(trained, conditions, row_N)
    ends = _ends(trained, batch, cells_N, options.seed)
    drawing = NewCells(
        trained, ends, batch.draw_keys(cells_N), options.config, options.seed, sizes_N
    )
    sample: Callable[[np.ndarray], PredictedCells] = drawing
    if set(ends.conditions) - set(conditions):
        sample = _between(trained, drawing, batch, options.seed)
    obs = batch.obs(trained.fields)
    obs.index = pd.Index(names, dtype=object)
    made_by = trained.made_by(sampler="generate", seed=options.seed, **options.config.to_dict())
    return output.deliver(Sampling(trained.genes, obs, made_by, sample, options.batch_size))


def _conditions(
    trained: Trained,
    requested: NewCellRequest,
    like: CellStore | None,
    uniform_N: np.ndarray,
) -> tuple[list[Condition], np.ndarray, np.ndarray | None]:
    """Conditions, the row of each cell's, and its library size where `like` says it."""
    fields = trained.fields
    if like is not None:
        others = sorted(set(like.perturbations) - {fields.control})
        if others:
            request.labels_of(trained, others)
        table = ConditionTable.from_cells(like, fields.perturbation_sep)
        chosen_N = (uniform_N * like.n_cells).astype(np.int64)
        return list(table.conditions), table.index[chosen_N], like.size_factors[chosen_N]
    label = requested.perturbation
    if label is not None:
        label = request.labels_of(trained, [label])[0]
    conditions, shares = request.composition(
        trained.frequencies, label, requested.covariates, fields, requested.dose, requested.time
    )
    row_N = np.searchsorted(np.cumsum(shares), uniform_N).clip(max=len(conditions) - 1)
    return conditions, row_N, None


def _ends(
    trained: Trained, requested: ConditionBatch, cells_N: np.ndarray, seed: int
) -> ConditionBatch:
    """The condition that each cell is drawn from: its own, or at a time of training next to it.

    Of the cells asked for at a time between two of training some start among those of the earlier
    and some among those of the later, the more the nearer it is in the progress of the course.
    """
    scale, known = trained.time_course.scale, trained.population.references
    earlier, later, share_Q = bracketing(requested.conditions, known, scale)
    distinct = list(dict.fromkeys((*earlier, *later)))
    place = {condition: i for i, condition in enumerate(distinct)}
    earlier_N, later_N = (
        np.array([place[c] for c in ends], dtype=np.int64)[requested.row]
        for ends in (earlier, later)
    )
    uniform_N = uniforms(cells_N, seed, TIME_STREAM)
    row_N = np.where(uniform_N < share_Q[requested.row], later_N, earlier_N)
    return ConditionBatch.of_rows(trained, distinct, row_N)


def _between(
    trained: Trained, drawing: NewCells, requested: ConditionBatch, seed: int
) -> Callable[[np.ndarray], PredictedCells]:
    """New cells, each at a time of training next to its own, sent on to the time asked for."""
    start, autoencoder = drawing.conditions, trained.autoencoder
    course = CourseMap(trained, start, requested, from_end=True, seed=seed)
    offset = route_offsets(trained, start, requested, SolverConfig(), from_end=True)

    def sample(at_B: np.ndarray) -> PredictedCells:
        drawn, keys_B = drawing(at_B), drawing.keys_N[at_B]
        start_B, end_B = start.row[at_B], requested.row[at_B]
        moves_B = np.array(
            [start.conditions[p] != requested.conditions[q]
             for p, q in zip(start_B, end_B, strict=True)]
        )  # fmt: skip
        if not moves_B.any():
            return drawn
        cells = as_cells(drawn, trained)
        z_BKD = autoencoder.encode(cells)
        ends = z_BKD, course(z_BKD, start_B, end_B, keys_B)
        offset_BG = None if offset is None else offset(start_B, end_B, None)
        own_B = keys_B[: n_unlike(at_B)]
        moved = edit(autoencoder, cells, ends, offset_BG, own_B, seed, MOVED_STREAM)
        place_B = np.arange(len(moves_B))
        return concatenate([moved, drawn])[np.where(moves_B, place_B, len(moves_B) + place_B)]

    return sample
