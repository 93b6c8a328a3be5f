"""CellFlow's side of the sampling benchmark; runs where `cellflow-tools` is installed.

    python sampling_speed_cellflow.py task.npz made.npz STEPS

Trains the small configuration of ``race_cellflow_peer.py`` for a number of steps, then predicts all
controls under every perturbation twice with each solver. The second time is kept, so that
compilation does not count.
"""

from __future__ import annotations

import sys
import time

import anndata as ad
import diffrax
import jax
import numpy as np
import optax
from cellflow.model import CellFlow
from race_cellflow_peer import BATCH, SIZE, table

SOLVERS = {
    "adaptive": {},
    "euler 20": {
        "solver": diffrax.Euler(),
        "dt0": 1 / 20,
        "stepsize_controller": diffrax.ConstantStepSize(),
    },
}


def main(task: str, out: str, steps: int) -> None:
    """Train, predict and time."""
    data = np.load(task, allow_pickle=False)
    obs = table(data["labels"], data["contexts"])
    genes = sorted(
        {part for label in [*data["labels"], *data["asked"]] for part in label.split("+")}
    )
    one_hot = {g: np.eye(len(genes), dtype=np.float32)[i] for i, g in enumerate(genes)}
    one_hot["control"] = np.zeros(len(genes), dtype=np.float32)
    is_control = data["labels"] == "control"
    adata = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs, obsm={"Z": data["z"]})
    adata.uns["genes"] = one_hot
    adata.uns["places"] = {
        context: data["z"][is_control & (data["contexts"] == context)].mean(0)
        for context in np.unique(data["contexts"])
    }
    model = CellFlow(adata, solver="otfm")
    model.prepare_data(
        sample_rep="Z",
        control_key="control",
        perturbation_covariates={"gene": tuple(n for n in obs if n.startswith("gene_"))},
        perturbation_covariate_reps={"gene": "genes"},
        sample_covariates=["context"],
        sample_covariate_reps={"context": "places"},
        split_covariates=["context"],
    )
    model.prepare_model(optimizer=optax.adam(1e-3), seed=0, **SIZE)
    model.train(steps, batch_size=BATCH, valid_freq=steps + 1)
    asked = table(data["asked"], data["asked_contexts"])
    own = is_control & np.isin(data["contexts"], np.unique(data["asked_contexts"]))
    cells = adata[own].copy()
    cells.obs["context"] = cells.obs["context"].cat.remove_unused_categories()
    weights = jax.tree_util.tree_leaves(model._solver.vf_state.params)
    result: dict[str, np.ndarray] = {"n_parameters": np.array(sum(w.size for w in weights))}
    for name, how in SOLVERS.items():
        for _ in range(2):
            begun = time.process_time()
            found = model.predict(
                cells, covariate_data=asked, sample_rep="Z", condition_id_key="label", **how
            )
            latents = {label: np.asarray(z) for label, z in found.items()}
            seconds = time.process_time() - begun
        result[f"{name}|seconds"] = np.array(seconds)
        result.update({f"{name}|{label}": z for label, z in latents.items()})
    np.savez(out, **result)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
