"""Predicted cells as AnnData, the same fields whoever made them.

=====================  =====================================================================
``X``                  log(1 + expected counts per 10,000), float32 CSR
``layers["counts"]``   counts drawn from the negative binomial, int32 CSR
``layers["mean"]``     expected counts at the cell's own size factor, float32 CSR
``obs``                perturbation, covariates, dose and time under the names of the training data;
                       ``size_factor``; ``extrapolation``; for counterfactuals ``control_cell``
``obsm["X_celldit"]``  the latent, float32
``uns["celldit"]``     what made the prediction
=====================  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.errors import CellditError


@dataclass(frozen=True, eq=False)
class PredictedCells:
    """A batch of predicted cells.

    Attributes
    ----------
    mean
        Expected counts, float32 CSR, shape (B, G).
    counts
        Drawn counts, int32 CSR, shape (B, G).
    size_factors
        Shape (B,).
    z
        Latent, shape (B, F).
    """

    mean: sparse.csr_matrix
    counts: sparse.csr_matrix
    size_factors: np.ndarray
    z: np.ndarray


def concatenate(batches: list[PredictedCells]) -> PredictedCells:
    """Join batches in their order."""
    return PredictedCells(
        sparse.vstack([b.mean for b in batches], format="csr"),
        sparse.vstack([b.counts for b in batches], format="csr"),
        np.concatenate([b.size_factors for b in batches]),
        np.concatenate([b.z for b in batches]),
    )


def to_anndata(
    cells: PredictedCells, genes: tuple[str, ...], obs: pd.DataFrame, made_by: dict[str, Any]
) -> ad.AnnData:
    """Write predicted cells.

    Raises
    ------
    CellditError
        If a prediction is not finite; such an output is never written.
    """
    if not (np.isfinite(cells.mean.data).all() and np.isfinite(cells.z).all()):
        raise CellditError(
            "The prediction holds values that are not finite; train again with another seed, and "
            "please report this with the data set's size and celldit's version."
        )
    expression = cells.mean.copy()
    per_count = (1e4 / cells.size_factors.astype(np.float64)).astype(np.float32)
    expression.data = np.log1p(expression.data * np.repeat(per_count, np.diff(expression.indptr)))
    obs = obs.copy()
    obs["size_factor"] = cells.size_factors.astype(np.float32)
    return ad.AnnData(
        X=expression,
        obs=obs,
        var=pd.DataFrame(index=pd.Index(genes, name=None, dtype=object)),
        layers={"counts": cells.counts, "mean": cells.mean},
        obsm={"X_celldit": cells.z.astype(np.float32)},
        uns={"celldit": made_by},
    )
