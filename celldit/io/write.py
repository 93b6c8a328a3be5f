"""Predicted cells as AnnData, the same fields whoever made them.

=====================  =====================================================================
``X``                  log(1 + expected counts per 10,000), float32 CSR
``layers["counts"]``   counts drawn from the negative binomial, int32 CSR; those of new cells are
                       brought to the distributions of measured ones
``layers["mean"]``     expected counts at the cell's own size factor, float32 CSR
``obs``                perturbation, covariates, dose and time under the names of the training data;
                       ``size_factor``; ``extrapolation``; for counterfactuals ``control_cell``
``obsm["X_celldit"]``  the latent, float32
``uns["celldit"]``     what made the prediction
=====================  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from celldit.data.cells import log_normalized
from celldit.errors import CellditError


@dataclass(frozen=True, eq=False)
class PredictedCells:
    """B predicted cells: expected counts, float32, and drawn ones, int32, shape (B, G) both.

    The latent `z` has every token at its own size, float32, shape (B, F).
    """

    mean: sparse.csr_matrix
    counts: sparse.csr_matrix
    size_factors: np.ndarray
    z: np.ndarray

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice | np.ndarray) -> PredictedCells:
        return PredictedCells(
            self.mean[rows], self.counts[rows], self.size_factors[rows], self.z[rows]
        )

    @property
    def expression(self) -> sparse.csr_matrix:
        """log(1 + expected counts per 10,000), float32 CSR, shape (B, G)."""
        return log_normalized(self.mean, self.size_factors)

    def check_finite(self) -> None:
        """Refuse what is not finite or negative: CellditError, since it is never written."""
        finite = all(np.isfinite(a).all() for a in (self.mean.data, self.z, self.size_factors))
        positive = (self.size_factors > 0).all()
        negative = any((matrix.data < 0).any() for matrix in (self.mean, self.counts))
        if not finite or not positive or negative:
            raise CellditError(
                "The prediction holds values that are not finite or negative; train again with "
                "another seed, and please report this with the data set's size and celldit's "
                "version."
            )


def concatenate(batches: list[PredictedCells]) -> PredictedCells:
    """Join batches in their order."""
    return PredictedCells(
        sparse.vstack([b.mean for b in batches], format="csr"),
        sparse.vstack([b.counts for b in batches], format="csr"),
        np.concatenate([b.size_factors for b in batches]),
        np.concatenate([b.z for b in batches]),
    )


def var_of(genes: tuple[str, ...]) -> pd.DataFrame:
    """The table of genes, with no columns."""
    return pd.DataFrame(index=pd.Index(genes, name=None, dtype=object))
