"""scVI as a predictor, judged at three points of its training.

Where every label that is asked for was trained on, the perturbation is scVI's batch: a control cell
is encoded as control and decoded as perturbed (``transform_batch``). Otherwise, for combinations
never seen, latent arithmetic in a model without batches, the shift of a combination being the sum
of those of its parts. Counts are drawn from the negative binomial around the decoded mean.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scvi
import torch
from peer_files import Points, Request, log_of_sampled, read_request

POINTS = (50, 100, 200)


def main(request: Request) -> None:
    """Train in stretches, predict after each."""
    torch.set_num_threads(1)
    scvi.settings.seed = request.seed
    train, controls = request.train, request.controls
    as_batch = set(request.asked) <= request.trained
    scvi.model.SCVI.setup_anndata(train, batch_key="perturbation" if as_batch else None)
    model = scvi.model.SCVI(train, n_latent=30, n_layers=2, gene_likelihood="nb")
    library_N = np.asarray(controls.X.sum(axis=1)).ravel()
    sizes_N = controls.obs["size_factor"].to_numpy()
    points = Points(request)
    done = 0
    for epochs in sorted({max(1, round(n * request.steps)) for n in POINTS}):
        model.train(
            max_epochs=epochs - done, accelerator="cpu", enable_progress_bar=False, logger=False
        )
        done = epochs
        theta_G = model.module.px_r.exp().detach().numpy()
        latent = _latents(model, request) if not as_batch else None

        def predict(label: str, theta_G=theta_G, latent=latent) -> np.ndarray:
            if latent is None:
                rate_NG = model.get_normalized_expression(
                    controls, transform_batch=label, library_size=1, return_numpy=True
                )
            else:
                rate_NG = _moved(model, latent, request.parts[label])
            mean_NG = np.asarray(rate_NG) * library_N[:, None]
            return log_of_sampled(mean_NG, theta_G, sizes_N, request.seed)

        points.save(f"{epochs:05d}_epochs", predict)


def _latents(model, request: Request) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Latent of the control cells, and the mean shift of every label, contexts weighing alike."""
    latent_ND = model.get_latent_representation(request.train)
    obs: pd.DataFrame = request.train.obs
    labels = obs["perturbation"].to_numpy()
    found: dict[str, list[np.ndarray]] = {}
    for rows in obs.groupby("context").indices.values():
        base = latent_ND[rows[labels[rows] == request.control]]
        for label in set(labels[rows]) - {request.control}:
            if len(base):
                own = latent_ND[rows[labels[rows] == label]]
                found.setdefault(label, []).append(own.mean(axis=0) - base.mean(axis=0))
    shifts = {label: np.mean(each, axis=0) for label, each in found.items()}
    return model.get_latent_representation(request.controls), shifts


def _moved(model, latent, parts: list[str]) -> np.ndarray:
    start_ND, shifts = latent
    unknown = [part for part in parts if part not in shifts]
    if unknown:
        raise LookupError(f"{', '.join(unknown)} was not trained on")
    z = torch.as_tensor(start_ND + np.sum([shifts[part] for part in parts], axis=0)).float()
    with torch.inference_mode():
        library = torch.zeros(len(z), 1)
        batch = torch.zeros(len(z), 1, dtype=torch.long)
        scale = model.module.generative(z=z, library=library, batch_index=batch)["px"]
        return (scale.scale if scale.scale is not None else scale.mean).numpy()


if __name__ == "__main__":
    main(read_request())
