"""scGen as in pertpy: latent arithmetic in a VAE, judged at three points of its training.

The shift of a perturbation is the mean latent of its cells minus that of control cells, every
context counting the same (scGen's balancing). A combination that was never seen is the sum of the
shifts of its parts. Hidden layers have 256 units where pertpy has 800, for the sake of a CPU.
"""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
import scvi
from peer_files import Points, Request, log_expression, read_request
from pertpy.tools import Scgen

POINTS = (25, 50, 100)


def main(request: Request) -> None:
    """Train in stretches, predict after each."""
    scvi.settings.seed = request.seed
    train, controls = request.train, request.controls
    train.X = log_expression(train).toarray()
    controls.X = log_expression(controls).toarray()
    Scgen.setup_anndata(train, batch_key="perturbation", labels_key="context")
    model = Scgen(train, n_hidden=256, n_latent=64)
    points = Points(request)
    done = 0
    for epochs in sorted({max(1, round(n * request.steps)) for n in POINTS}):
        model.train(
            max_epochs=epochs - done, batch_size=64, accelerator="cpu", enable_progress_bar=False
        )
        done = epochs
        latent_ND = np.asarray(model.get_latent_representation(train))
        start_ND = np.asarray(model.get_latent_representation(controls))
        shifts = _shifts(train.obs, latent_ND, request)

        def predict(label: str, start_ND=start_ND, shifts=shifts) -> np.ndarray:
            parts = [label] if label in shifts else request.parts[label]
            unknown = [part for part in parts if part not in shifts]
            if unknown:
                raise LookupError(f"{', '.join(unknown)} was not trained on")
            shift_D = np.sum([shifts[part] for part in parts], axis=0)
            bound = model.module.as_bound()
            return np.asarray(bound.generative(jax.numpy.asarray(start_ND + shift_D))["px"])

        points.save(f"{epochs:05d}_epochs", predict)


def _shifts(obs: pd.DataFrame, latent_ND: np.ndarray, request: Request) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    for rows in obs.groupby("context").indices.values():
        labels = obs["perturbation"].to_numpy()[rows]
        base = latent_ND[rows[labels == request.control]]
        for label in set(labels) - {request.control}:
            own = latent_ND[rows[labels == label]]
            if len(base):
                found.setdefault(label, []).append(own.mean(axis=0) - base.mean(axis=0))
    # scGen balances contexts, so each counts the same.
    return {label: np.mean(shifts, axis=0) for label, shifts in found.items()}


if __name__ == "__main__":
    main(read_request())
