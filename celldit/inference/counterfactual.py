"""Counterfactuals: each control cell, had it been perturbed."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.inference import request
from celldit.inference.batch import ConditionBatch
from celldit.inference.counts import draw_counterfactual_counts
from celldit.inference.edit import EditConfig
from celldit.inference.offsets.condition import Offset, log_offsets
from celldit.inference.offsets.course import course_offsets, with_course
from celldit.inference.sampling import Sampling, collect
from celldit.inference.solver import SolverConfig
from celldit.inference.transport import Route, TransportMap, transport_map
from celldit.io.write import PredictedCells
from celldit.latent.autoencoder import Autoencoder
from celldit.training.trained import Trained


def predict(
    trained: Trained,
    controls: CellStore,
    perturbations: Sequence[str],
    *,
    dose: object,
    time: float | None,
    config: SolverConfig,
    seed: int,
    batch_size: int,
) -> ad.AnnData:
    """Predict every control cell under every perturbation by transport, in memory.

    Parameters
    ----------
    trained, controls, perturbations, dose, time, config, seed, batch_size
        As in :func:`plan`.
    """
    planned = plan(
        trained,
        controls,
        perturbations,
        dose=dose,
        time=time,
        config=config,
        seed=seed,
        batch_size=batch_size,
    )
    return collect(planned)


def plan(
    trained: Trained,
    controls: CellStore,
    perturbations: Sequence[str],
    *,
    dose: object,
    time: float | None,
    config: SolverConfig,
    seed: int,
    batch_size: int,
    sampler: str = "transport",
    edit: EditConfig | None = None,
) -> Sampling:
    """Plan every control cell under every perturbation; see :meth:`celldit.CellDiT.predict`.

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
    sampler, edit
        Which road the cells take, and the settings of ``"edit"``.
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
    means = control_means(controls, z_NKD)
    target = ConditionBatch.of(trained, conditions, means)
    own = own_conditions(controls) * len(perturbations)
    keys = np.tile(np.arange(controls.n_cells), len(perturbations))
    route = Route(ConditionBatch.of(trained, own, means), target, keys, target.weight_Q)
    edit = edit or EditConfig()
    move = transport_map(trained, route, sampler, config, edit, seed)
    obs = target.obs(trained.fields, len(conditions))
    own_names = controls.names
    obs["control_cell"] = np.tile(own_names, len(perturbations))
    obs["flow_weight"] = target.weight_Q.numpy()[target.row]
    obs["effect_sd"] = target.embedding.sds_Q.numpy()[target.row]
    names = [f"{name}|{label}" for label in perturbations for name in own_names]
    obs.index = pd.Index(names, dtype=object)
    made_by = trained.made_by(
        sampler=sampler,
        perturbations=list(perturbations),
        seed=seed,
        **config.to_dict(),
        **(edit.to_dict() if sampler == "edit" else {}),
    )
    offset = with_course(
        course_offsets(trained, route.source, target), route, log_offsets(trained, target, config)
    )
    return Sampling(
        trained.genes,
        obs,
        made_by,
        lambda at: edited_tile(trained.autoencoder, controls, z_NKD, move, keys, at, seed, offset),
        batch_size,
    )


def edited_tile(
    autoencoder: Autoencoder,
    cells: CellStore,
    z_NKD: torch.Tensor,
    move: TransportMap,
    keys: np.ndarray,
    at: np.ndarray,
    seed: int,
    offset: Offset | None = None,
) -> PredictedCells:
    """Send the cells at some positions of a request on their way and write it as an edit of them.

    Parameters
    ----------
    autoencoder
        For its decoder.
    cells, z_NKD
        N observed cells, and their latents.
    move
        Where they go.
    keys
        Which cell is at each position of the request.
    at
        Positions of a whole tile; those beyond the request repeat its last.
    seed
        Of the drawn counts.
    offset
        What their log rates are corrected by; None for nothing.
    """
    at = at.clip(max=len(keys) - 1)
    cell = keys[at]
    z_BKD = z_NKD[torch.from_numpy(cell)]
    offset_BG = None if offset is None else offset(at)
    return edit(autoencoder, cells.take(cell), z_BKD, move(z_BKD, at), at, seed, offset_BG)


def own_conditions(cells: CellStore) -> list[Condition]:
    """The condition of control cells: nothing done, in their own context at their own time."""
    times = [None] * cells.n_cells if cells.times is None else cells.times.tolist()
    return [
        Condition(context=str(context), time=when)
        for context, when in zip(cells.contexts, times, strict=True)
    ]


def control_means(controls: CellStore, z_NKD: torch.Tensor) -> dict[StratumKey, np.ndarray]:
    """Mean latent of the controls at hand in each context and time."""
    z_NF = z_NKD.flatten(1).double().numpy()
    times = [None] * controls.n_cells if controls.times is None else controls.times.tolist()
    frame = pd.DataFrame({"context": controls.contexts, "time": times}).astype(object)
    groups = frame.groupby(["context", "time"], dropna=False).indices
    return {
        (str(context), None if pd.isna(time) else float(time)): z_NF[rows].mean(0)
        for (context, time), rows in groups.items()
    }


def edit(
    autoencoder: Autoencoder,
    controls: Cells,
    z_BKD: torch.Tensor,
    moved_BKD: torch.Tensor,
    keys: np.ndarray,
    seed: int,
    offset_BG: torch.Tensor | None = None,
) -> PredictedCells:
    """Write a move in the latent as an edit of the observed cells.

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
    offset_BG
        Added to the log rates after the move; None for nothing.
    """
    size_B = torch.from_numpy(controls.size_factors)
    with torch.no_grad():
        after_BG = autoencoder.decode(moved_BKD, size_B).mean_BG
    if offset_BG is not None:
        after_BG = corrected(autoencoder, after_BG, offset_BG, size_B)
    return edited(autoencoder, controls, z_BKD, moved_BKD, after_BG, keys, seed)


def corrected(
    autoencoder: Autoencoder,
    after_BG: torch.Tensor,
    offset_BG: torch.Tensor,
    size_B: torch.Tensor,
) -> torch.Tensor:
    """Expected counts with something added to their log rates, (B, G)."""
    ceiling_BG = autoencoder.decoder.log_ceiling.exp() * (size_B[:, None] / 1e4)
    # Never above the ceiling, except for what was there already.
    return torch.minimum(after_BG * offset_BG.exp(), torch.maximum(after_BG, ceiling_BG))


@torch.no_grad()
def edited(
    autoencoder: Autoencoder,
    controls: Cells,
    z_BKD: torch.Tensor,
    moved_BKD: torch.Tensor,
    after_BG: torch.Tensor,
    keys: np.ndarray,
    seed: int,
) -> PredictedCells:
    """Observed cells whose expected counts are others.

    The decoder says how the expectation of a cell's counts changes, and the counts that were seen
    change accordingly, so that what the decoder cannot reconstruct cancels; see
    :meth:`celldit.latent.likelihoods.CountModel.counterfactual_mean`.

    Parameters
    ----------
    autoencoder, controls, z_BKD, moved_BKD, keys, seed
        As in :func:`edit`.
    after_BG
        Expected counts after the move, as the decoder has them.
    """
    before = autoencoder.decode(z_BKD, torch.from_numpy(controls.size_factors))
    seen_BG = torch.from_numpy(controls.counts.toarray())
    mean_BG = before.counterfactual_mean(seen_BG, after_BG)
    drawn = draw_counterfactual_counts(
        before, controls.counts, after_BG.double().numpy(), keys, seed
    )
    return PredictedCells(
        sparse.csr_matrix(mean_BG.numpy()),
        drawn,
        controls.size_factors,
        autoencoder.at_own_size(moved_BKD),
    )
