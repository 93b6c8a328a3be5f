"""CellFlow's side of the race; runs where `cellflow-tools` is installed, without celldit.

    python race_cellflow_peer.py task.npz predictions.npz SECONDS SEED

Small configuration: layers of 256, one-hot perturbations, contexts described by the mean latent of
their control cells, Adam at 1e-3. The clock counts seconds of one core, so that it does not depend
on what else the machine does, and stops while predictions are made.
"""

from __future__ import annotations

import contextlib
import sys
import time

import anndata as ad
import numpy as np
import optax
import pandas as pd
from cellflow.model import CellFlow
from cellflow.training import ComputationCallback

BATCH, EVERY = 256, 50
LOOKS = (50, 100, 200, 400, 800, 1600, 3200, 6400)
CELLS = 256
SIZE = {
    "condition_embedding_dim": 64,
    "time_encoder_dims": (256, 256),
    "hidden_dims": (256, 256),
    "decoder_dims": (256, 256),
    "time_freqs": 256,
    "cond_output_dropout": 0.1,
    "pooling": "mean",
}


def table(labels: np.ndarray, contexts: np.ndarray) -> pd.DataFrame:
    """One column for each part of a combination, as CellFlow wants them."""
    parts = [label.split("+") for label in labels]
    most = max(2, max(map(len, parts)))
    columns = {
        f"gene_{i + 1}": [p[i] if i < len(p) else "control" for p in parts] for i in range(most)
    }
    frame = pd.DataFrame({**columns, "context": contexts, "label": labels})
    frame["control"] = labels == "control"
    return frame.astype(dict.fromkeys([*columns, "context", "label"], "category"))


class OutOfTime(Exception):
    """Training has had its time."""


class Looks(ComputationCallback):
    """Predict after some numbers of steps, with the clock stopped."""

    def __init__(self, predict, clock: float, seconds: float) -> None:
        self.predict, self.clock, self.seconds = predict, clock, seconds
        self.steps, self.times, self.made = 0, [], []
        self.since = time.process_time()

    def on_train_begin(self) -> None:
        """Nothing."""

    def on_train_end(self, *_) -> dict:
        """Nothing."""
        return {}

    def on_log_iteration(self, source, true, predicted, solver) -> dict:
        """Look, if it is time to."""
        self.steps += EVERY
        now = self.clock + time.process_time() - self.since
        over = now >= self.seconds
        if self.steps in LOOKS or over:
            solver.is_trained = True
            self.made.append(self.predict())
            self.times.append((self.steps, now))
            self.clock, self.since = now, time.process_time()
        if over:
            raise OutOfTime
        return {}


def main(task: str, out: str, seconds: float, seed: int) -> None:
    """Train for some seconds and write what is predicted every 50 steps."""
    data = np.load(task, allow_pickle=False)
    started = time.process_time()
    obs = table(data["labels"], data["contexts"])
    genes = sorted(
        {part for label in [*data["labels"], *data["asked"]] for part in label.split("+")}
    )
    one_hot = {g: np.eye(len(genes), dtype=np.float32)[i] for i, g in enumerate(genes)}
    one_hot["control"] = np.zeros(len(genes), dtype=np.float32)
    is_control = data["labels"] == "control"
    means = {
        context: data["z"][is_control & (data["contexts"] == context)].mean(0)
        for context in np.unique(data["contexts"])
    }
    whole = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs, obsm={"Z": data["z"]})
    whole.uns["genes"], whole.uns["places"] = one_hot, means
    # CellFlow takes no controls of a context without perturbed cells in training.
    useful = np.isin(data["contexts"], np.unique(data["contexts"][~is_control]))
    adata = whole[useful].copy()
    for name in adata.obs.columns[adata.obs.dtypes == "category"]:
        adata.obs[name] = adata.obs[name].cat.remove_unused_categories()
    columns = tuple(name for name in obs if name.startswith("gene_"))
    model = CellFlow(adata, solver="otfm")
    model.prepare_data(
        sample_rep="Z",
        control_key="control",
        perturbation_covariates={"gene": columns},
        perturbation_covariate_reps={"gene": "genes"},
        sample_covariates=["context"],
        sample_covariate_reps={"context": "places"},
        split_covariates=["context"],
    )
    model.prepare_model(optimizer=optax.adam(1e-3), seed=seed, **SIZE)
    asked = table(data["asked"], data["asked_contexts"])
    controls, rng = whole[is_control], np.random.default_rng(0)
    rows = [
        rng.permutation(np.flatnonzero(controls.obs["context"] == context))[:CELLS]
        for context in np.unique(data["asked_contexts"])
    ]
    cells = controls[np.concatenate(rows)].copy()
    cells.obs["context"] = cells.obs["context"].cat.remove_unused_categories()

    def predict() -> dict[str, np.ndarray]:
        return model.predict(cells, covariate_data=asked, sample_rep="Z", condition_id_key="label")

    looks = Looks(predict, time.process_time() - started, seconds)
    with contextlib.suppress(OutOfTime):
        model.train(LOOKS[-1] + 2, batch_size=BATCH, valid_freq=EVERY, callbacks=[looks])
    keys = sorted(looks.made[0])
    np.savez(
        out,
        steps=np.array([steps for steps, _ in looks.times]),
        seconds=np.array([clock for _, clock in looks.times]),
        z=np.array([np.concatenate([m[k] for k in keys]) for m in looks.made], dtype=np.float32),
        keys=np.array(keys),
        sizes=np.array([len(looks.made[0][k]) for k in keys]),
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
