"""Counterfactuals: each control cell, had it been perturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import torch

from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.data.imputation import Imputed
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.inference import request
from celldit.inference.batch import ConditionBatch
from celldit.inference.edits import CellEdits
from celldit.inference.maps.transport import Route, Sampler, TransportMap, transport_map
from celldit.inference.offsets import Offset, by_position, own_uniforms, route_offsets
from celldit.inference.responders import Responders
from celldit.inference.solver import SamplingOptions
from celldit.io.sampling import Sampling, flagged
from celldit.io.shards import Output
from celldit.random import keys_of
from celldit.training.trained import Trained


@dataclass(frozen=True, eq=False)
class Controls:
    """The N control cells of a request, encoded once."""

    cells: CellStore
    z_NKD: torch.Tensor
    means: dict[StratumKey, np.ndarray]  # mean latent by context and time
    keys_N: np.ndarray  # of their random numbers

    @classmethod
    def of(cls, trained: Trained, cells: CellStore) -> Controls:
        """Choose the controls among some cells; InputError if there is none."""
        fields = trained.fields
        if not cells.is_control.any():
            raise InputError(
                f"No cell is labelled {fields.control!r} in "
                f"adata.obs[{fields.perturbation_key!r}]; predictions start from controls, so add "
                "control cells."
            )
        controls = cells.select(cells.is_control)
        z_NKD = trained.autoencoder.encode(controls)
        return cls(controls, z_NKD, control_means(controls, z_NKD), keys_of(controls.names))

    def conditions(self) -> list[Condition]:
        """Theirs: nothing done, in their own context at their own time."""
        times = [None] * self.cells.n_cells if self.cells.times is None else self.cells.times
        return [
            Condition(context=str(context), time=None if time is None else float(time))
            for context, time in zip(self.cells.contexts, times, strict=True)
        ]


def predict(
    trained: Trained,
    cells: CellStore,
    requested: request.Counterfactuals,
    sampler: Sampler,
    options: SamplingOptions,
    output: Output,
    imputed: Imputed | None = None,
) -> ad.AnnData:
    """Predict every control cell under every perturbation; see :meth:`celldit.CellDiT.predict`.

    `cells` are those given, controls among them; `imputed` is what was filled in of them.
    """
    planned = plan(trained, Controls.of(trained, cells), requested, sampler, options)
    if imputed is not None:
        planned = flagged(planned, imputed, cells.is_control)
    return output.deliver(planned)


def plan(
    trained: Trained,
    controls: Controls,
    requested: request.Counterfactuals,
    sampler: Sampler,
    options: SamplingOptions,
) -> Sampling:
    """Plan every control cell under every perturbation, ordered by perturbation."""
    conditions = [
        condition
        for label in requested.labels
        for condition in request.counterfactual_conditions(
            controls.cells, label, trained.fields, requested.dose, requested.time
        )
    ]
    request.warn_outside(conditions, trained.frequencies)
    target, move, offset, responders = moves(trained, controls, conditions, sampler, options.seed)
    n_labels, cell_names = len(requested.labels), controls.cells.names
    cell_P = np.tile(np.arange(len(cell_names)), n_labels)
    keys_P = target.draw_keys(controls.keys_N[cell_P])
    obs = target.obs(trained.fields)
    obs["control_cell"] = np.tile(cell_names, n_labels)
    obs["flow_weight"] = target.weight_Q.numpy()[target.row]
    obs["effect_sd"] = target.embedding.sds_Q.numpy()[target.row]
    obs["responds"] = responders.responds_P
    names = [f"{name}|{label}" for label in requested.labels for name in cell_names]
    obs.index = pd.Index(names, dtype=object)
    edits = CellEdits(
        trained.autoencoder, controls.cells, controls.z_NKD, cell_P, keys_P, move, offset,
        options.seed,
    )  # fmt: skip
    made_by = trained.made_by(
        **sampler.to_dict(), perturbations=list(requested.labels), seed=options.seed
    )
    return Sampling(trained.genes, obs, made_by, edits, options.batch_size)


def moves(
    trained: Trained,
    controls: Controls,
    conditions: Sequence[Condition],
    sampler: Sampler,
    seed: int,
) -> tuple[ConditionBatch, TransportMap, Offset | None, Responders]:
    """How N control cells, all of them once or several times over, get to conditions, one for each.

    Returns
    -------
    target, move, offset, responders
        The conditions; where latents at some positions go; what is added to their log rates; which
        cells respond, as both hold already.
    """
    n_times = len(conditions) // controls.cells.n_cells
    target = ConditionBatch.of(trained, conditions, controls.means)
    source = ConditionBatch.of(trained, controls.conditions() * n_times, controls.means)
    route = Route(source, target, np.tile(controls.keys_N, n_times))
    move = transport_map(trained, route, sampler, seed)
    uniform_PX = own_uniforms(trained, target.conditions, target.draw_keys(route.keys), seed)
    by_rows = route_offsets(trained, source, target, sampler.config)
    offset = by_position(by_rows, source, target, uniform_PX)
    responders = Responders.of(trained, target, route.keys, seed)
    return target, responders.moved(move), responders.offset(offset), responders


def control_means(controls: CellStore, z_NKD: torch.Tensor) -> dict[StratumKey, np.ndarray]:
    """Mean latent of the controls at hand in each context and time, whatever their order."""
    z_NF = z_NKD.flatten(1).double().numpy()
    times = [None] * controls.n_cells if controls.times is None else controls.times.tolist()
    frame = pd.DataFrame({"context": controls.contexts, "time": times}).astype(object)
    groups = frame.groupby(["context", "time"], dropna=False).indices
    return {
        # Sorted, as a sum depends on the order of its terms.
        (str(context), None if pd.isna(time) else float(time)): np.sort(z_NF[rows], 0).mean(0)
        for (context, time), rows in groups.items()
    }
