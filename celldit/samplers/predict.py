"""Counterfactuals by transport: each control cell, had it been perturbed."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from celldit.conditions.population import Surroundings
from celldit.data.cells import Cells
from celldit.latent.autoencoder import Autoencoder
from celldit.samplers import request
from celldit.samplers.counts import draw_counterfactual_counts
from celldit.samplers.flow import SolverConfig, transport
from celldit.samplers.trained import Asked, Trained
from celldit.samplers.write import PredictedCells, concatenate, to_anndata


def predict(
    trained: Trained,
    controls: Cells,
    perturbations: Sequence[str],
    *,
    dose: object,
    time: float | None,
    config: SolverConfig,
    seed: int,
    batch_size: int,
) -> ad.AnnData:
    """Predict every control cell under every perturbation; see :meth:`celldit.CellDiT.predict`.

    Parameters
    ----------
    trained
        The model.
    controls
        N control cells with the model's genes.
    perturbations
        Canonical labels that were checked.
    dose, time
        As the user gave them.
    config, seed, batch_size
        Of the solver, the drawn counts, and cells at a time.
    """
    conditions = [
        condition
        for label in perturbations
        for condition in request.counterfactual_conditions(
            controls, label, trained.fields, dose, time
        )
    ]
    request.warn_outside(conditions, trained.frequencies)
    z_NKD = trained.autoencoder.encode(controls)
    asked = Asked.of(trained, conditions, control_means(controls, z_NKD))
    batches: list[PredictedCells] = []
    for start in range(0, len(conditions), batch_size):
        at = np.arange(start, min(start + batch_size, len(conditions)))
        cell, row = at % controls.n_cells, asked.row[at]
        z_BKD = z_NKD[torch.from_numpy(cell)]
        told = asked.briefing.tell(row, from_noise=False)
        moved = transport(
            trained.flow,
            z_BKD + told.effect_BKD,
            told,
            asked.trust_Q[torch.from_numpy(row)],
            config,
        )
        batches.append(edit(trained.autoencoder, controls.take(cell), z_BKD, moved, at, seed))
    of_cell, kinds = asked.per_cell()
    obs = request.obs_of(of_cell, kinds, trained.fields)
    obs["control_cell"] = np.tile(controls.names, len(perturbations))
    obs["trust"] = asked.trust_Q.numpy()[asked.row]
    obs["effect_sd"] = asked.briefing.doubts_Q.numpy()[asked.row]
    names = [f"{name}|{label}" for label in perturbations for name in controls.names]
    obs.index = pd.Index(names, dtype=object)
    made_by = trained.made_by(
        sampler="transport", perturbations=list(perturbations), seed=seed, **config.to_dict()
    )
    return to_anndata(concatenate(batches), trained.genes, obs, made_by)


def control_means(controls: Cells, z_NKD: torch.Tensor) -> dict[Surroundings, np.ndarray]:
    """Mean latent of the controls at hand in each context and time."""
    z_NF = z_NKD.flatten(1).double().numpy()
    times = [None] * controls.n_cells if controls.times is None else controls.times.tolist()
    frame = pd.DataFrame({"context": controls.contexts, "time": times}).astype(object)
    groups = frame.groupby(["context", "time"], dropna=False).indices
    return {
        (str(context), None if pd.isna(time) else float(time)): z_NF[rows].mean(0)
        for (context, time), rows in groups.items()
    }


@torch.no_grad()
def edit(
    autoencoder: Autoencoder,
    controls: Cells,
    z_BKD: torch.Tensor,
    moved_BKD: torch.Tensor,
    keys: np.ndarray,
    seed: int,
) -> PredictedCells:
    """Write a move in the latent as an edit of the observed cells.

    The decoder says how the expectation of a cell's counts changes, and the counts that were seen
    change accordingly, so that what the decoder cannot reconstruct cancels; see
    :meth:`celldit.latent.likelihoods.CountModel.counterfactual_mean`.

    Parameters
    ----------
    autoencoder
        For its decoder.
    controls
        B observed cells.
    z_BKD, moved_BKD
        Where they are in the latent, and where they would be.
    keys, seed
        Random stream of each cell.
    """
    size_B = torch.from_numpy(controls.size_factors)
    before = autoencoder.decode(z_BKD, size_B)
    after_BG = autoencoder.decode(moved_BKD, size_B).mean_BG
    seen_BG = torch.from_numpy(controls.counts.toarray())
    mean_BG = before.counterfactual_mean(seen_BG, after_BG)
    drawn = draw_counterfactual_counts(
        before, controls.counts, after_BG.double().numpy(), keys, seed
    )
    return PredictedCells(
        sparse.csr_matrix(mean_BG.numpy()),
        drawn,
        controls.size_factors,
        moved_BKD.flatten(1).numpy(),
    )
