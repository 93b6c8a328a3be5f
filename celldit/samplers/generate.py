"""New cells from noise."""

from __future__ import annotations

from collections.abc import Mapping

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from celldit.conditions import Condition, ConditionTable
from celldit.data.cells import Cells
from celldit.flow import cell_noise, cell_uniform
from celldit.samplers import request
from celldit.samplers.counts import draw_counts
from celldit.samplers.flow import SolverConfig, transport
from celldit.samplers.trained import Asked, Trained
from celldit.samplers.write import PredictedCells, concatenate, to_anndata

COMPOSITION_STREAM = 1 << 19
SIZE_STREAM = 1 << 20


def generate(
    trained: Trained,
    n_cells: int,
    *,
    perturbation: str | None,
    covariates: Mapping[str, str] | None,
    like: Cells | None,
    dose: object,
    time: float | None,
    config: SolverConfig,
    seed: int,
    batch_size: int,
) -> ad.AnnData:
    """Generate cells; see :meth:`celldit.CellDiT.generate` for the arguments."""
    keys = np.arange(n_cells)
    # Each cell draws its condition from its own stream, so more cells do not change the first.
    uniform_N = uniforms(keys, seed, COMPOSITION_STREAM)
    sizes_N: np.ndarray | None = None
    conditions: list[Condition]
    if like is not None:
        table = ConditionTable.from_cells(like, trained.fields.perturbation_sep)
        chosen = (uniform_N * like.n_cells).astype(np.int64)
        conditions = [table.conditions[i] for i in table.index[chosen]]
        sizes_N = like.size_factors[chosen]
    else:
        options, shares = request.composition(
            trained.frequencies, perturbation, covariates, trained.fields, dose, time
        )
        chosen = np.searchsorted(np.cumsum(shares), uniform_N)
        conditions = [options[i] for i in np.minimum(chosen, len(options) - 1)]
    request.warn_outside(conditions, trained.frequencies)
    asked = Asked.of(trained, conditions)
    batches = [
        _batch(trained, asked, keys[i : i + batch_size], config, seed, sizes_N)
        for i in range(0, n_cells, batch_size)
    ]
    obs = request.obs_of(*asked.per_cell(), trained.fields)
    obs.index = pd.Index([f"generated_{key}" for key in keys], dtype=object)
    made_by = trained.made_by(sampler="generate", seed=seed, **config.to_dict())
    return to_anndata(concatenate(batches), trained.genes, obs, made_by)


def _batch(
    trained: Trained,
    asked: Asked,
    keys: np.ndarray,
    config: SolverConfig,
    seed: int,
    sizes_N: np.ndarray | None,
) -> PredictedCells:
    population, shape = trained.population, trained.shape
    row_B = asked.row[keys]
    told = asked.briefing.tell(row_B, from_noise=True)
    noise_BF = cell_noise(torch.from_numpy(keys), (shape[0] * shape[1],), seed).double().numpy()
    start_BF = told.position_BKD.flatten(1).double().numpy()
    for row in np.unique(row_B):
        own = row_B == row
        factor_FF = population.factor(asked.conditions[row].surroundings)
        start_BF[own] += noise_BF[own] @ factor_FF.T
    start_BKD = torch.from_numpy(start_BF.astype(np.float32)).view(-1, *shape)
    z_BKD = transport(trained.flow, start_BKD, told, torch.ones(len(keys)), config)
    z_BF = z_BKD.flatten(1).numpy()
    if sizes_N is None:
        sizes_B = population.sizes(z_BF, uniforms(keys, seed, SIZE_STREAM))
    else:
        sizes_B = sizes_N[keys]
    with torch.no_grad():
        model = trained.autoencoder.decode(z_BKD, torch.from_numpy(sizes_B))
    return PredictedCells(
        sparse.csr_matrix(model.mean_BG.numpy()), draw_counts(model, keys, seed), sizes_B, z_BF
    )


def uniforms(keys: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """A uniform number for each cell from its own stream, shape (B,)."""
    return cell_uniform(torch.from_numpy(keys), (1,), seed, stream)[:, 0].double().numpy()
