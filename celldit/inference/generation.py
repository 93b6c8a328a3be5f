"""New cells from noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from celldit.calibration.new_cells.model import Towards
from celldit.conditions import Condition, ConditionTable
from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.flow import cell_noise
from celldit.inference import request
from celldit.inference.batch import ConditionBatch
from celldit.inference.counterfactual import Offset, condition_offsets
from celldit.inference.counts import draw_counts
from celldit.inference.noise import STATE_STREAM, solver_from_noise, uniforms
from celldit.inference.sampling import TILE, Sampling, filled_up
from celldit.inference.solver import SolverConfig, carry
from celldit.inference.time.pair import Pair
from celldit.io.write import PredictedCells, concatenate
from celldit.training.trained import Trained

COMPOSITION_STREAM = 1 << 19
SIZE_STREAM = 1 << 20


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
    asked = ConditionBatch.of_rows(trained, options, row_N)
    pair = Pair.of(trained, asked, seed)
    offset = condition_offsets(trained, pair.ends, SolverConfig())
    obs = asked.obs(trained.fields, n_cells)
    obs.index = pd.Index([f"generated_{key}" for key in range(n_cells)], dtype=object)
    return Sampling(
        trained.genes,
        obs,
        trained.made_by(sampler="generate", seed=seed, **config.to_dict()),
        lambda keys: _tile(trained, pair, keys, config, seed, sizes_N, offset),
        batch_size,
    )


def new_cells(trained: Trained, condition: Condition, n_cells: int, seed: int) -> Cells:
    """Cells of one condition, with no more about them than their counts and sizes.

    Parameters
    ----------
    trained
        The model.
    condition
        The condition.
    n_cells
        How many.
    seed
        Of everything drawn.
    """
    keys = np.arange(filled_up(n_cells))
    pair = Pair.of(trained, ConditionBatch.of_rows(trained, [condition], 0 * keys), seed)
    offset = condition_offsets(trained, pair.ends, SolverConfig())
    tiles = [
        _tile(trained, pair, keys[start : start + TILE], SolverConfig(), seed, None, offset)
        for start in range(0, len(keys), TILE)
    ]
    drawn = concatenate(tiles)[:n_cells]
    names = np.array([str(key) for key in range(n_cells)], dtype=object)
    control = trained.fields.control
    return Cells(
        drawn.counts.astype(np.float32),
        drawn.size_factors,
        trained.genes,
        np.full(n_cells, control, dtype=object),
        pd.DataFrame(index=range(n_cells)),
        None,
        None,
        names,
        control,
    )


def _tile(
    trained: Trained,
    pair: Pair,
    keys: np.ndarray,
    config: SolverConfig,
    seed: int,
    sizes_N: np.ndarray | None,
    offset: Offset | None,
) -> PredictedCells:
    row_B, new_cell_model, sources = pair.ends.row[keys], trained.new_cell_model, pair.sources
    uniform_B = uniforms(keys, seed, STATE_STREAM)
    if sizes_N is None:
        state_B = sources.draw(row_B, uniform_B)
    else:
        sizes_B = sizes_N[keys]
        state_B = sources.draw(row_B, uniform_B, new_cell_model.sizes.log_densities(sizes_B))
    other_B, share_B = pair.states_of_others(keys, state_B), pair.share_N[keys]
    if sizes_N is None:
        uniform_B = uniforms(keys, seed, SIZE_STREAM)
        here_B, there_B = (
            new_cell_model.sizes(states_B, uniform_B) for states_B in (state_B, other_B)
        )
        sizes_B = (here_B ** (1 - share_B) * there_B**share_B).astype(np.float32)
    noise_BKD = cell_noise(torch.from_numpy(keys), trained.shape, seed)

    def at(row_B: np.ndarray, state_B: np.ndarray) -> tuple[Tensor, Tensor]:
        """Latents of the flow, and those to decode."""
        source = sources.rows(row_B, state_B)
        solver = None
        if config.solver == "sde":
            solver = solver_from_noise(config, source.to(trained.flow.device), keys, seed)
        told = source.tell(pair.ends.embedding, row_B)
        z_BKD = carry(trained.flow, source(noise_BKD), told, config, solver=solver)
        return z_BKD, new_cell_model.latents(z_BKD, torch.as_tensor(source.position), state_B)

    z_BKD, clean_BKD = at(row_B, state_B)
    size_B, towards = torch.from_numpy(sizes_B), None
    if share_B.any():
        share = torch.from_numpy(share_B.astype(np.float32))
        other_BKD, clean_other_BKD = at(pair.other_N[keys], other_B)
        other_offset_BG = None if offset is None else offset(pair.other_N[keys])
        towards = Towards(clean_other_BKD, other_B, share, other_offset_BG)
        z_BKD = torch.lerp(z_BKD, other_BKD, share[:, None, None])
    with torch.no_grad():
        offset_BG = None if offset is None else offset(row_B)
        model = new_cell_model.counts(
            trained.autoencoder, clean_BKD, size_B, state_B, offset_BG, towards
        )
    return PredictedCells(
        sparse.csr_matrix(model.mean_BG.numpy()),
        draw_counts(model, keys, seed),
        sizes_B,
        trained.autoencoder.at_own_size(z_BKD),
    )
