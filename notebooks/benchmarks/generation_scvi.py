"""Cells from scVI, for ``generation.py``; runs in an environment with scvi-tools.

    PYTHON_WITH_SCVI notebooks/benchmarks/generation_scvi.py FOLDER SEED

FOLDER holds ``train.h5ad`` and ``like.h5ad`` (counts in X, ``obs["group"]``, the group of each
cell). Written there: ``scvi.h5ad``, scVI with its defaults, latents drawn from its prior, and
``scvi_labels.h5ad``, the same with the group as batch covariate of encoder and decoder. Both get
the groups and the library sizes (here the sum over the genes at hand, as scVI defines it) of
``like.h5ad``; counts are drawn from the decoder's zero-inflated negative binomial. Training stops
early by scVI's own rule, on a tenth of the cells.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import scvi
import torch
from scipy import sparse


def make(folder: Path, seed: int, labels: bool) -> None:
    """Train on ``train.h5ad`` and draw cells like those of ``like.h5ad``."""
    train, like = (ad.read_h5ad(folder / f"{name}.h5ad") for name in ("train", "like"))
    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(train, batch_key="group" if labels else None)
    model = scvi.model.SCVI(train)
    start = time.perf_counter()
    model.train(
        early_stopping=True,
        train_size=0.9,
        enable_progress_bar=False,
        accelerator="cpu",
        devices=1,
    )
    seconds = time.perf_counter() - start
    module = model.module.eval()
    row_B = torch.zeros(like.n_obs, 1, dtype=torch.int64)
    if labels:
        names = model.adata_manager.get_state_registry("batch").categorical_mapping
        row_of = {str(name): i for i, name in enumerate(names)}
        row_B[:, 0] = torch.tensor([row_of[g] for g in like.obs["group"].astype(str)])
    library_B = torch.from_numpy(np.log(np.asarray(like.X.sum(1)).clip(1)).astype(np.float32))
    start = time.perf_counter()
    torch.manual_seed(seed)
    drawn = []
    with torch.no_grad():
        for at in torch.arange(like.n_obs).split(512):
            z_BK = torch.randn(len(at), module.n_latent)
            made = module.generative(z=z_BK, library=library_B[at], batch_index=row_B[at])
            drawn.append(sparse.csr_matrix(made["px"].sample().numpy().astype(np.int32)))
    rate = like.n_obs / (time.perf_counter() - start)
    out = ad.AnnData(sparse.vstack(drawn, format="csr"), obs=like.obs.copy(), var=like.var.copy())
    out.uns["seconds"], out.uns["cells_per_second"] = seconds, rate
    out.uns["epochs"] = len(model.history["elbo_train"])
    out.write_h5ad(folder / ("scvi_labels.h5ad" if labels else "scvi.h5ad"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for with_labels in (False, True):
        make(Path(sys.argv[1]), int(sys.argv[2]), with_labels)
