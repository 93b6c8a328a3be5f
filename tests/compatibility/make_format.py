"""Make the folder ``format_N``: models, cells and predictions as this release writes them.

Run once per model format, with the first release that writes it, and never again: what is committed
is what later releases must read. ``python tests/compatibility/make_format.py``
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit import CellDiT, __version__
from celldit.io.folders import FORMAT
from celldit.latent import LatentConfig
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig

HERE = Path(__file__).resolve().parent / f"format_{FORMAT}"


def screen() -> ad.AnnData:
    """240 cells x 16 genes: A, B, A+B and controls in two donors at two times."""
    rng = np.random.default_rng(7)
    labels = np.array(["control", "control", "A", "B", "A+B"])[np.arange(240) % 5]
    log_rate = rng.normal(1.0, 0.7, 16) + np.zeros((240, 16))
    for name in ("A", "B"):
        has = np.array([name in label.split("+") for label in labels])
        log_rate[has] += rng.normal(0, 0.8, 16)
    counts = rng.poisson(np.exp(log_rate)) + np.eye(240, 16, dtype=int)
    obs = pd.DataFrame(
        {"perturbation": labels, "donor": np.array(["d1", "d2"])[np.arange(240) // 5 % 2]},
        index=[f"cell{i}" for i in range(240)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(16)])
    return ad.AnnData(sparse.csr_matrix(counts.astype(np.int32)), obs=obs, var=var)


def main() -> None:
    """Train, save, and write down what the model says."""
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    adata = screen()
    CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["donor"]
    )
    model = CellDiT(
        adata,
        "modules",
        LatentConfig(n_dims=4, token_dim=2),
        dit=DiTConfig(width=8, depth=1, n_heads=2),
    )
    config = TrainingConfig(flow_steps_per_epoch=8, n_trials=1, flow_batch=32)
    model.train(2, config=config, enable_progress_bar=False)
    # So that what the network says is kept, too, however little such a model learns.
    model = model.weighted(1)
    model.save(HERE / "pca")
    effects = model.predict_effects(["A", "A+B"])
    predicted = model.predict(adata, perturbations=["A", "A+B"], seed=1)
    said = {
        "celldit": __version__,
        "model": model.trained.model_id,
        "log_fold_change": effects["log_fold_change"].round(6).tolist(),
        "mean": predicted.layers["mean"].toarray().mean(0).round(6).tolist(),
        "latent": predicted.obsm["X_celldit"].mean(0).round(6).tolist(),
    }
    (HERE / "pca.json").write_text(json.dumps(said, indent=1) + "\n")
    adata.uns.clear()
    adata.write_h5ad(HERE / "cells.h5ad", compression="gzip")


if __name__ == "__main__":
    main()
