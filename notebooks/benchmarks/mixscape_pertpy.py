"""pertpy's Mixscape, for ``mixscape.py``; runs in an environment with pertpy.

    PYTHON_WITH_PERTPY notebooks/benchmarks/mixscape_pertpy.py SCREEN.h5ad CALLS.csv

SCREEN holds counts, and ``perturbation``, ``replicate`` and ``total_umis`` in ``obs``; CALLS gets
the probability that each cell was perturbed. As in pertpy's documentation: log-normalized counts,
20 nearest controls of the same replicate in 15 principal components, defaults for the rest.
"""

from __future__ import annotations

import sys

import anndata as ad
import numpy as np
import pertpy as pt
import scanpy as sc
from scipy import sparse


def main(screen: str, calls: str) -> None:
    """Write the calls."""
    adata = ad.read_h5ad(screen)
    scale = 1e4 / adata.obs["total_umis"].to_numpy(np.float64)
    adata.X = sparse.csr_matrix(sparse.diags(scale) @ adata.X).log1p()
    sc.pp.pca(adata, random_state=0)
    mixscape = pt.tl.Mixscape()
    mixscape.perturbation_signature(
        adata, "perturbation", "control", split_by="replicate", random_state=0
    )
    mixscape.mixscape(adata, "perturbation", "control", layer="X_pert")
    adata.obs[["mixscape_class", "mixscape_class_p_ko"]].to_csv(calls)


if __name__ == "__main__":
    main(*sys.argv[1:])
