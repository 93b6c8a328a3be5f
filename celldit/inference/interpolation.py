"""Cells on the straight way from one condition to another, or from one cell to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from celldit.arguments import text_list
from celldit.data.store import CellStore
from celldit.errors import InputError, UnknownNameError
from celldit.inference import request
from celldit.inference.counterfactual import Controls, moves
from celldit.inference.edits import CellEdits
from celldit.inference.maps.transport import Sampler
from celldit.inference.solver import SamplingOptions
from celldit.io.sampling import Sampling
from celldit.io.shards import Output
from celldit.random import draw_keys, keys_of
from celldit.training.trained import Trained


def interpolate(
    trained: Trained,
    cells: CellStore,
    ends: request.Counterfactuals,
    shares: Sequence[float],
    options: SamplingOptions,
    output: Output,
) -> ad.AnnData:
    """Show each control cell on the straight way between two of its counterfactuals.

    `ends` has the labels of the conditions at shares 0 and 1, which are what
    :func:`celldit.inference.counterfactual.predict` gives. The drawn counts belong to the condition
    that is nearer, half way to the first. A cell that keeps a knocked-out gene at an end keeps it
    on the way; the others lose it by and by.
    """
    controls, sampler = Controls.of(trained, cells), Sampler(config=options.config)
    n, key = controls.cells.n_cells, trained.fields.perturbation_key
    targets, maps, offsets, _ = zip(
        *(
            moves(
                trained,
                controls,
                request.counterfactual_conditions(controls.cells, label, trained.fields, ends.dose),
                sampler,
                options.seed,
            )
            for label in ends.labels
        ),
        strict=True,
    )
    cell_P = np.tile(np.arange(n), len(shares))
    share_P = torch.tensor(list(shares), dtype=controls.z_NKD.dtype).repeat_interleave(n)
    first_N, last_N = (target.draw_keys(controls.keys_N) for target in targets)
    keys_P = np.where(share_P.numpy() <= 0.5, first_N[cell_P], last_N[cell_P])

    def move(z_BKD: Tensor, at_B: np.ndarray) -> Tensor:
        first_BKD, last_BKD = (one_way(z_BKD, cell_P[at_B]) for one_way in maps)
        return torch.lerp(first_BKD, last_BKD, share_P[torch.from_numpy(at_B)][:, None, None])

    def offset(at_B: np.ndarray) -> Tensor:
        first_BG, last_BG = (one(cell_P[at_B]) for one in offsets)
        return torch.lerp(first_BG, last_BG, share_P[torch.from_numpy(at_B)][:, None])

    obs = targets[1].obs(trained.fields).iloc[cell_P].drop(columns="extrapolation")
    if key is not None:
        obs[key] = " to ".join(ends.labels)
    obs["share"] = share_P.numpy()
    names = controls.cells.names
    obs["control_cell"] = names[cell_P]
    obs.index = pd.Index([f"{c}|{s:g}" for s in shares for c in names], dtype=object)
    made_by = trained.made_by(
        sampler="interpolation", start=ends.labels[0], end=ends.labels[1], seed=options.seed,
        **options.config.to_dict(),
    )  # fmt: skip
    edits = CellEdits(
        trained.autoencoder, controls.cells, controls.z_NKD, cell_P, keys_P, move,
        None if None in offsets else offset, options.seed,
    )  # fmt: skip
    return output.deliver(Sampling(trained.genes, obs, made_by, edits, options.batch_size))


def interpolate_cells(
    trained: Trained,
    cells: CellStore,
    pairs: Sequence[tuple[str, str]],
    shares: Sequence[float],
    options: SamplingOptions,
    output: Output,
) -> ad.AnnData:
    """Show the cells on the straight way in the latent between pairs of observed cells.

    Each is written as an edit of the cell it is nearer to, so that both ends are the observed cells
    themselves, to the count; half way it is an edit of the first. UnknownNameError if there is no
    cell of a name, InputError if there are several.
    """
    row = {str(name): i for i, name in enumerate(cells.names)}
    used = list(dict.fromkeys(name for pair in pairs for name in pair))
    for name in used:
        if name not in row:
            raise UnknownNameError.among("cell", name, row)
        n_cells = int((cells.names == name).sum())
        if n_cells > 1:
            raise InputError(
                f"{n_cells} cells are called {name!r}, so that it is not clear which is meant; "
                "call adata.obs_names_make_unique() and pass adata."
            )
    position = {name: i for i, name in enumerate(used)}
    ends = cells.select(np.array([row[name] for name in used]))
    z_NKD = trained.autoencoder.encode(ends)
    first, last = (
        np.array([position[pair[side]] for pair in pairs] * len(shares)) for side in (0, 1)
    )
    share_P = np.repeat(np.array(shares, dtype=np.float32), len(pairs))
    nearer, farther = np.where(share_P <= 0.5, (first, last), (last, first))

    def move(z_BKD: Tensor, at_B: np.ndarray) -> Tensor:
        far_BKD = z_NKD[torch.from_numpy(farther[at_B])]
        gone_B = torch.from_numpy(np.minimum(share_P, 1 - share_P)[at_B])
        return torch.lerp(z_BKD, far_BKD, gone_B[:, None, None])

    obs = pd.DataFrame(
        {
            "start_cell": [start for start, _ in pairs] * len(shares),
            "end_cell": [end for _, end in pairs] * len(shares),
            "share": share_P,
        },
        index=pd.Index([f"{a} to {b}|{s:g}" for s in shares for a, b in pairs], dtype=object),
    )
    keys_N = keys_of(used)
    keys_P = draw_keys(keys_N[nearer], keys_N[farther])
    edits = CellEdits(trained.autoencoder, ends, z_NKD, nearer, keys_P, move, None, options.seed)
    made_by = trained.made_by(sampler="interpolation of cells", seed=options.seed)
    return output.deliver(Sampling(trained.genes, obs, made_by, edits, options.batch_size))


def check_pairs(start: Sequence[str] | str, end: Sequence[str] | str) -> list[tuple[str, str]]:
    """Names of cells in pairs; one name faces as many as the other side has.

    InputError if the sides differ in length, are empty, or hold a pair twice.
    """
    first, last = text_list(start, "start"), text_list(end, "end")
    first = first * len(last) if len(first) == 1 else first
    last = last * len(first) if len(last) == 1 else last
    if not first or len(first) != len(last):
        raise InputError(
            f"start= names {len(first)} cells and end= {len(last)}; name as many, or one alone."
        )
    pairs = list(zip(first, last, strict=True))
    twice = next((pair for pair, n in Counter(pairs).items() if n > 1), None)
    if twice is not None:
        raise InputError(f"The way from {twice[0]!r} to {twice[1]!r} is asked for twice.")
    return pairs


def check_shares(shares: Sequence[float]) -> list[float]:
    """Refuse shares of the way that are none, or not within [0, 1], with an InputError."""
    try:
        numbers = [float(share) for share in shares]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(0 <= share <= 1 for share in numbers):
        raise InputError(f"shares={shares!r} must be numbers in [0, 1], such as [0, 0.5, 1].")
    return list(dict.fromkeys(numbers))
