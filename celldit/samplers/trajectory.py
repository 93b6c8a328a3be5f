"""Cells along a path through time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from celldit.conditions import ConditionTable
from celldit.conditions.trust import Trust
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.samplers import request
from celldit.samplers.edit import EditConfig
from celldit.samplers.flow import SolverConfig
from celldit.samplers.predict import control_means, edited_tile
from celldit.samplers.roads import Journey, road
from celldit.samplers.sampling import Sampling
from celldit.samplers.trained import Asked, Shares, Trained


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
    through noise. Between trained times the source lies between theirs, and the flow, which
    generation trusts wholly, is trusted wholly here.

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
    table = ConditionTable.from_cells(cells, trained.fields.perturbation_sep)
    own = [table.conditions[i] for i in table.index]
    wanted = [replace(c, time=float(time)) for time in times for c in own]
    request.warn_outside(wanted, trained.frequencies)
    z_NKD = trained.autoencoder.encode(cells)
    means = control_means(cells.select(cells.is_control), z_NKD[torch.from_numpy(cells.is_control)])
    there = Asked.of(trained, wanted, means)
    here = Asked.of(trained, own * len(times), means)
    keys = np.tile(np.arange(cells.n_cells), len(times))
    wholly = Shares.of([Trust(1.0, 1.0)] * len(there.conditions))
    journey = Journey(here, there, keys, wholly)
    way = road(trained, journey, sampler, config, EditConfig(), seed)
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
        lambda at: edited_tile(trained.autoencoder, cells, z_NKD, way, keys, at, seed),
        batch_size,
    )


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
