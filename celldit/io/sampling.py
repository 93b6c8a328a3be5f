"""A prediction that is planned but not yet made: cells are sampled in tiles, as they are needed.

All arithmetic on cells runs in tiles of :data:`TILE` cells, the last one filled up. A matrix
product may round differently for another number of rows, so this is what makes the bytes of a cell
the same whatever the batch size and whichever other cells are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from celldit.data.imputation import Imputed
from celldit.io.write import PredictedCells, concatenate, var_of
from celldit.latent.autoencoder import TILE
from celldit.progress import late_bar


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
