"""Cells along a path through time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from celldit.conditions import ConditionTable
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.inference import request
from celldit.inference.batch import ConditionBatch
from celldit.inference.counterfactual import control_means
from celldit.inference.edits import CellEdits
from celldit.inference.offsets import by_position, route_offsets
from celldit.inference.solver import SamplingOptions, SolverConfig
from celldit.inference.time.course_map import CourseMap
from celldit.io.sampling import Sampling
from celldit.io.shards import Output
from celldit.random import keys_of
from celldit.training.trained import Trained


def trajectory(
    trained: Trained,
    cells: CellStore,
    times: Sequence[float],
    options: SamplingOptions,
    output: Output,
) -> ad.AnnData:
    """Show every cell, of any condition, at every time; see :meth:`celldit.CellDiT.trajectory`."""
    trained.check_draws_new_cells()
    table = ConditionTable.from_cells(cells, trained.fields.perturbation_sep)
    own = [table.conditions[i] for i in table.index]
    wanted = [replace(c, time=time) for time in times for c in own]
    request.warn_outside(wanted, trained.frequencies)
    z_NKD = trained.autoencoder.encode(cells)
    means = control_means(cells.select(cells.is_control), z_NKD[torch.from_numpy(cells.is_control)])
    start = ConditionBatch.of(trained, own * len(times), means)
    end = ConditionBatch.of(trained, wanted, means)
    cell_P = np.tile(np.arange(cells.n_cells), len(times))
    keys_P = keys_of(cells.names)[cell_P]
    course = CourseMap(trained, start, end, seed=options.seed)

    def move(z_BKD: Tensor, at_B: np.ndarray) -> Tensor:
        return course(z_BKD, start.row[at_B], end.row[at_B], keys_P[at_B])

    obs = end.obs(trained.fields)
    names = cells.names
    obs["source_cell"] = np.tile(names, len(times))
    obs["source_time"] = [c.time for c in own] * len(times)
    obs.index = pd.Index([f"{n}|{t:g}" for t in times for n in names], dtype=object)
    made_by = trained.made_by(sampler="trajectory", times=list(times), seed=options.seed)
    offset = route_offsets(trained, start, end, SolverConfig())
    edits = CellEdits(
        trained.autoencoder, cells, z_NKD, cell_P, end.draw_keys(keys_P), move,
        by_position(offset, start, end), options.seed,
    )  # fmt: skip
    return output.deliver(Sampling(trained.genes, obs, made_by, edits, options.batch_size))


def check_times(times: Sequence[float], trained: Trained) -> list[float]:
    """Refuse times with an InputError: no finite numbers, or the model knows no time."""
    if trained.fields.time_key is None:
        raise InputError("trajectory() needs a model that was set up with time_key=.")
    numbers = [float(t) for t in np.atleast_1d(np.asarray(times, dtype=np.float64))]
    if not numbers or not np.isfinite(numbers).all():
        raise InputError(f"times={times!r} must be finite numbers, such as [10, 10.5, 11].")
    return list(dict.fromkeys(numbers))
