"""Cells on the straight way from one condition to another, or from one cell to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from celldit.arguments import text_list
from celldit.data.store import CellStore
from celldit.errors import InputError, UnknownNameError
from celldit.inference import request
from celldit.inference.batch import ConditionBatch
from celldit.inference.counterfactual import (
    control_means,
    edited_tile,
    log_offsets,
    own_conditions,
)
from celldit.inference.edit import EditConfig
from celldit.inference.sampling import Sampling
from celldit.inference.solver import SolverConfig
from celldit.inference.transport import Route, transport_map
from celldit.training.trained import Trained


def plan_interpolation(
    trained: Trained,
    controls: CellStore,
    start: str,
    end: str,
    shares: Sequence[float],
    *,
    config: SolverConfig,
    seed: int,
    batch_size: int,
) -> Sampling:
    """Plan each control cell on the straight way between two of its counterfactuals.

    Parameters
    ----------
    trained
        The model.
    controls
        N control cells.
    start, end
        Canonical labels of the conditions at shares 0 and 1.
    shares
        How far along, each in [0, 1]. At 0 and 1 the latent is exactly what predict() gives.
    config, seed, batch_size
        Of the solver, the drawn counts, and cells at a time.
    """
    z_NKD = trained.autoencoder.encode(controls)
    means = control_means(controls, z_NKD)
    own = own_conditions(controls)
    n, source = controls.n_cells, ConditionBatch.of(trained, own, means)
    moves, offsets = [], []
    for label in (start, end):
        conditions = request.counterfactual_conditions(controls, label, trained.fields)
        target = ConditionBatch.of(trained, conditions, means)
        route = Route(source, target, np.arange(n), target.weight_Q)
        moves.append(transport_map(trained, route, "transport", config, EditConfig(), seed))
        offsets.append(log_offsets(trained, target, config))
    keys = np.tile(np.arange(n), len(shares))
    share_P = torch.tensor(list(shares), dtype=z_NKD.dtype).repeat_interleave(n)

    def move(z_BKD: Tensor, at_B: np.ndarray) -> Tensor:
        cell_B = keys[at_B]
        first_BKD, last_BKD = (one_way(z_BKD, cell_B) for one_way in moves)
        return torch.lerp(first_BKD, last_BKD, share_P[torch.from_numpy(at_B)][:, None, None])

    def offset(at_B: np.ndarray) -> Tensor:
        first_BG, last_BG = (one(keys[at_B]) for one in offsets if one is not None)
        return torch.lerp(first_BG, last_BG, share_P[torch.from_numpy(at_B)][:, None])

    corrected = None if trained.mean_calibration.is_none else offset
    obs = source.obs(trained.fields, n).iloc[keys].drop(columns="extrapolation")
    key = trained.fields.perturbation_key
    if key is not None:
        obs[key] = f"{start} to {end}"
    obs["share"] = share_P.numpy()
    names = controls.names
    obs["control_cell"] = names[keys]
    obs.index = pd.Index([f"{c}|{s:g}" for s in shares for c in names], dtype=object)
    made_by = trained.made_by(
        sampler="interpolation", start=start, end=end, seed=seed, **config.to_dict()
    )
    return Sampling(
        trained.genes,
        obs,
        made_by,
        lambda at: edited_tile(
            trained.autoencoder, controls, z_NKD, move, keys, at, seed, corrected
        ),
        batch_size,
    )


def plan_between_cells(
    trained: Trained,
    cells: CellStore,
    start: Sequence[str],
    end: Sequence[str],
    shares: Sequence[float],
    *,
    seed: int,
    batch_size: int,
) -> Sampling:
    """Plan the cells on the straight way in the latent between pairs of observed cells.

    Each is written as an edit of the cell it is nearer to, so that both ends are the observed cells
    themselves, to the count; half way it is an edit of the first.

    Parameters
    ----------
    trained
        The model.
    cells
        Where the named cells are.
    start, end
        Names of P cells each.
    shares
        How far along, each in [0, 1].
    seed, batch_size
        Of the drawn counts, and cells at a time.
    """
    row = {str(name): i for i, name in enumerate(cells.names)}
    for name in (*start, *end):
        if name not in row:
            raise UnknownNameError.among("cell", name, row)
        n_cells = int((cells.names == name).sum())
        if n_cells > 1:
            raise InputError(
                f"{n_cells} cells are called {name!r}, so that it is not clear which is meant; "
                "call adata.obs_names_make_unique() and pass adata."
            )
    used = list(dict.fromkeys((*start, *end)))
    position = {name: i for i, name in enumerate(used)}
    ends = cells.select(np.array([row[name] for name in used]))
    z_NKD = trained.autoencoder.encode(ends)
    first, last = (np.array([position[n] for n in names] * len(shares)) for names in (start, end))
    share_P = np.repeat(np.array(shares, dtype=np.float32), len(start))
    nearer = np.where(share_P <= 0.5, first, last)

    def move(z_BKD: Tensor, at_B: np.ndarray) -> Tensor:
        far_BKD = z_NKD[torch.from_numpy(np.where(share_P <= 0.5, last, first)[at_B])]
        gone_B = torch.from_numpy(np.minimum(share_P, 1 - share_P)[at_B])
        return torch.lerp(z_BKD, far_BKD, gone_B[:, None, None])

    pairs = list(zip(start, end, strict=True))
    obs = pd.DataFrame(
        {
            "start_cell": [a for a, _ in pairs] * len(shares),
            "end_cell": [b for _, b in pairs] * len(shares),
            "share": share_P,
        },
        index=pd.Index([f"{a} to {b}|{s:g}" for s in shares for a, b in pairs], dtype=object),
    )
    made_by = trained.made_by(sampler="interpolation of cells", seed=seed)
    return Sampling(
        trained.genes,
        obs,
        made_by,
        lambda at: edited_tile(trained.autoencoder, ends, z_NKD, move, nearer, at, seed),
        batch_size,
    )


def check_pairs(
    start: Sequence[str] | str, end: Sequence[str] | str
) -> tuple[list[str], list[str]]:
    """Names of cells in pairs; one name faces as many as the other side has.

    Raises
    ------
    InputError
        If the sides differ in length, are empty, or hold a pair twice.
    """
    first, last = text_list(start, "start"), text_list(end, "end")
    first = first * len(last) if len(first) == 1 else first
    last = last * len(first) if len(last) == 1 else last
    if not first or len(first) != len(last):
        raise InputError(
            f"start= names {len(first)} cells and end= {len(last)}; name as many, or one alone."
        )
    seen: set[tuple[str, str]] = set()
    for pair in zip(first, last, strict=True):
        if pair in seen:
            raise InputError(f"The way from {pair[0]!r} to {pair[1]!r} is asked for twice.")
        seen.add(pair)
    return first, last


def check_shares(shares: Sequence[float]) -> list[float]:
    """Refuse shares of the way that are not within it.

    Raises
    ------
    InputError
        If there is none, or one outside [0, 1].
    """
    try:
        numbers = [float(share) for share in shares]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(0 <= share <= 1 for share in numbers):
        raise InputError(f"shares={shares!r} must be numbers in [0, 1], such as [0, 0.5, 1].")
    return list(dict.fromkeys(numbers))
