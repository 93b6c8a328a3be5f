"""Cells along a path through time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.between import Between
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.inference import request
from celldit.inference.batch import ConditionBatch
from celldit.inference.counterfactual import Offset, control_means, corrected, edited
from celldit.inference.edit import EditConfig
from celldit.inference.sampling import Sampling
from celldit.inference.solver import SolverConfig
from celldit.inference.time.offsets import course_offsets
from celldit.inference.transport import Route, TransportMap, transport_map
from celldit.io.write import PredictedCells
from celldit.training.trained import Trained


def plan_trajectory(
    trained: Trained,
    cells: CellStore,
    times: Sequence[float],
    *,
    sampler: str,
    config: SolverConfig,
    seed: int,
    batch_size: int,
) -> Sampling:
    """Plan every cell at every time; see :meth:`celldit.CellDiT.trajectory`.

    Time has no anchored source, since no pair of cells is the same cell twice; the road leads
    through noise, and the flow, which generation trusts wholly, is trusted wholly here. Between
    trained times a cell goes to both, and its expected counts lie on the straight line between
    those that it has there (:mod:`celldit.conditions.between`). At a trained time cells have the
    mean log expression of those measured (:mod:`celldit.inference.time.offsets`).

    Parameters
    ----------
    trained
        The model.
    cells
        N cells, of any condition, at times of their own.
    times
        Where to show them.
    sampler
        ``"inversion"`` or ``"edit"``.
    config, seed, batch_size
        Of the solver, the drawn counts, and cells at a time.
    """
    trained.check_draws_new_cells()
    table = ConditionTable.from_cells(cells, trained.fields.perturbation_sep)
    own = [table.conditions[i] for i in table.index]
    wanted = [replace(c, time=float(time)) for time in times for c in own]
    request.warn_outside(wanted, trained.frequencies)
    z_NKD = trained.autoencoder.encode(cells)
    means = control_means(cells.select(cells.is_control), z_NKD[torch.from_numpy(cells.is_control)])
    here = ConditionBatch.of(trained, own * len(times), means)
    keys = np.tile(np.arange(cells.n_cells), len(times))

    there = ConditionBatch.of(trained, wanted, means)
    between = Between.of(there.conditions, trained.population.references)
    # At its own time a cell is itself, whether that time is trained or not.
    itself_N = np.array([a == b for a, b in zip(wanted, own * len(times), strict=True)])
    share_N = np.where(itself_N, 0.0, between.share_Q[there.row])

    def way_to(ends: Sequence[Condition]) -> tuple[TransportMap, Offset]:
        goals = [
            wanted[i] if itself else ends[q]
            for i, (q, itself) in enumerate(zip(there.row, itself_N, strict=True))
        ]
        goal = ConditionBatch.of(trained, goals, means)
        wholly = torch.ones(len(goal.conditions))
        journey = Route(here, goal, keys, wholly)
        way = transport_map(trained, journey, sampler, config, EditConfig(), seed)
        return way, course_offsets(trained, here, goal, sampler, config)

    ways = way_to(between.earlier), way_to(between.later)
    obs = there.obs(trained.fields, len(wanted))
    names = cells.names
    obs["source_cell"] = np.tile(names, len(times))
    obs["source_time"] = [c.time for c in own] * len(times)
    obs.index = pd.Index([f"{n}|{t:g}" for t in times for n in names], dtype=object)
    made_by = trained.made_by(
        sampler=f"trajectory by {sampler}",
        times=[float(t) for t in times],
        seed=seed,
        **config.to_dict(),
    )
    return Sampling(
        trained.genes,
        obs,
        made_by,
        lambda at: _tile(trained, cells, z_NKD, ways, share_N, keys, at, seed),
        batch_size,
    )


def _tile(
    trained: Trained,
    cells: CellStore,
    z_NKD: Tensor,
    ways: tuple[tuple[TransportMap, Offset], tuple[TransportMap, Offset]],
    share_P: np.ndarray,
    keys: np.ndarray,
    at: np.ndarray,
    seed: int,
) -> PredictedCells:
    """The cells at some positions of a request, between the ends of two ways."""
    at = at.clip(max=len(keys) - 1)
    chosen, z_BKD = cells.take(keys[at]), z_NKD[torch.from_numpy(keys[at])]
    share_B = torch.from_numpy(share_P[at].astype(np.float32))
    size_B = torch.from_numpy(chosen.size_factors)

    def end(way: TransportMap, offset: Offset) -> tuple[Tensor, Tensor]:
        moved_BKD = way(z_BKD, at)
        with torch.no_grad():
            after_BG = trained.autoencoder.decode(moved_BKD, size_B).mean_BG
        return moved_BKD, corrected(trained.autoencoder, after_BG, offset(at), size_B)

    first_BKD, first_BG = end(*ways[0])
    # On a trained day both ways are one.
    last_BKD, last_BG = end(*ways[1]) if bool(share_B.any()) else (first_BKD, first_BG)
    after_BG = torch.lerp(first_BG, last_BG, share_B[:, None])
    moved_BKD = torch.lerp(first_BKD, last_BKD, share_B[:, None, None])
    return edited(trained.autoencoder, chosen, z_BKD, moved_BKD, after_BG, at, seed)


def check_times(times: Sequence[float], trained: Trained) -> list[float]:
    """Refuse times that cannot be used.

    Raises
    ------
    InputError
        If the model knows no time, or a time is no finite number.
    """
    if trained.fields.time_key is None:
        raise InputError("trajectory() needs a model that was set up with time_key=.")
    numbers = [float(t) for t in np.atleast_1d(np.asarray(times, dtype=np.float64))]
    if not numbers or not np.isfinite(numbers).all():
        raise InputError(f"times={times!r} must be finite numbers, such as [10, 10.5, 11].")
    return list(dict.fromkeys(numbers))
