"""A prediction that is planned but not yet made: cells are sampled in tiles, as they are needed.

All arithmetic on cells runs in tiles of :data:`TILE` cells, the last one filled up. A matrix
product may round differently for another number of rows, so this is what makes the bytes of a cell
the same whatever the batch size and whichever other cells are asked for. The AnnData has the same
fields whoever made it:

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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.data.cells import log_normalized
from celldit.data.imputation import Imputed
from celldit.errors import CellditError
from celldit.latent.autoencoder import TILE
from celldit.progress import late_bar


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


@dataclass(frozen=True, eq=False)
class Sampling:
    """What will be sampled: cells of `genes` with the columns `obs`, but ``size_factor``.

    `sample` makes the cells of a whole tile from their positions, int64, shape (TILE,); the last
    tile is filled up with its last cell. `batch_size` cells are handed on at a time, rounded up to
    whole tiles; `made_by` is for ``uns["celldit"]``.
    """

    genes: tuple[str, ...]
    obs: pd.DataFrame
    made_by: Mapping[str, Any]
    sample: Callable[[np.ndarray], PredictedCells]
    batch_size: int

    @property
    def n_cells(self) -> int:
        """How many cells there will be."""
        return len(self.obs)

    def batches(self) -> Iterator[PredictedCells]:
        """Sample the cells in order; a batch is made when it is asked for."""
        tiles: list[PredictedCells] = []
        per_batch = -(-self.batch_size // TILE)
        with late_bar("sampling", "cells") as show:
            for start in range(0, self.n_cells, TILE):
                tile = self.sample(np.arange(start, start + TILE).clip(max=self.n_cells - 1))
                tiles.append(tile[: self.n_cells - start])
                show(min(start + TILE, self.n_cells), self.n_cells)
                if len(tiles) == per_batch:
                    yield concatenate(tiles)
                    tiles = []
        if tiles:
            yield concatenate(tiles)


def flagged(sampling: Sampling, imputed: Imputed, chosen_N: np.ndarray) -> Sampling:
    """Note which genes were filled in, and their share of the counts of each cell, by perturbation.

    `chosen_N` says which of the N cells that were read are predicted.
    """
    shares = imputed.share_N[chosen_N]
    repeated = np.tile(shares, sampling.n_cells // max(1, len(shares)))
    noted = {**sampling.made_by, "imputed": {"genes": list(imputed.genes)}}
    return replace(sampling, obs=sampling.obs.assign(imputed_share=repeated), made_by=noted)


def collect(sampling: Sampling) -> ad.AnnData:
    """Sample all cells into memory.

    CellditError if a prediction is not finite; such an output is never given.
    """
    cells = concatenate(list(sampling.batches()))
    cells.check_finite()
    return ad.AnnData(
        X=cells.expression,
        obs=sampling.obs.assign(size_factor=cells.size_factors.astype(np.float32)),
        var=var_of(sampling.genes),
        layers={"counts": cells.counts, "mean": cells.mean},
        obsm={"X_celldit": cells.z},
        uns={"celldit": dict(sampling.made_by)},
    )
