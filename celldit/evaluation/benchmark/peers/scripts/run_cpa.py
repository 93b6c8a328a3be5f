"""CPA with its negative binomial decoder, judged at three points of its training.

A combination is ``A+B`` as CPA writes it; contexts are its categorical covariates. Counterfactuals
are its own ``predict`` on control cells that carry the label asked for.
"""

from __future__ import annotations

import cpa
import numpy as np
import torch
from peer_files import SCALE, Points, Request, read_request

POINTS = (25, 50, 100)


def main(request: Request) -> None:
    """Train in stretches, predict after each."""
    torch.set_num_threads(1)
    torch.manual_seed(request.seed)
    train, controls = request.train, request.controls
    for cells in (train, controls):
        cells.obs["label"] = _written(request, cells.obs["perturbation"])
        cells.obs["dose"] = _doses(cells.obs["label"])
        cells.X = cells.X.toarray()
    options = {
        "perturbation_key": "label",
        "control_group": request.control,
        "dosage_key": "dose",
        "categorical_covariate_keys": ["context"],
        "is_count_data": True,
        "max_comb_len": max(len(parts) for parts in request.parts.values()),
    }
    unknown = set(request.names) - {p for label in request.trained for p in _parts(request, label)}
    if unknown:
        raise LookupError(f"{', '.join(sorted(unknown))} was not trained on")
    cpa.CPA.setup_anndata(train, **options)
    model = cpa.CPA(train, n_latent=64, recon_loss="nb", doser_type="linear", seed=request.seed)
    sizes_N = controls.obs["size_factor"].to_numpy()
    points = Points(request)
    done = 0
    for epochs in sorted({max(1, round(n * request.steps)) for n in POINTS}):
        model.train(max_epochs=epochs - done, use_gpu=False, batch_size=128)
        done = epochs

        def predict(label: str) -> np.ndarray:
            asked = controls.copy()
            asked.obs["label"] = "+".join(request.parts[label])
            asked.obs["dose"] = _doses(asked.obs["label"])
            model.predict(asked)
            counts = np.asarray(asked.obsm["CPA_pred"])
            return np.log1p(SCALE * counts / sizes_N[:, None])

        points.save(f"{epochs:05d}_epochs", predict)


def _parts(request: Request, label: str) -> list[str]:
    return request.parts.get(label, [])


def _written(request: Request, labels) -> list[str]:
    return ["+".join(_parts(request, label)) or request.control for label in labels]


def _doses(labels) -> list[str]:
    return ["+".join("1.0" for _ in label.split("+")) for label in labels]


if __name__ == "__main__":
    main(read_request())
