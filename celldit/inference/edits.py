"""A move in the latent, written as an edit of observed cells.

The decoder says how the expectation of a cell's counts changes, and the counts that were seen
change accordingly, so that what the decoder cannot reconstruct cancels
(:meth:`celldit.latent.likelihoods.CountModel.counterfactual_mean`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.io.sampling import PredictedCells
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.likelihoods import CountModel
from celldit.random import COUNTS_STREAM, cell_generator


@dataclass(frozen=True, eq=False)
class CellEdits:
    """The cells of a request, each an edit of an observed one, by its position in the request."""

    autoencoder: Autoencoder  # for its decoder
    cells: CellStore  # N observed cells
    z_NKD: Tensor  # and their latents
    cell_P: np.ndarray  # which of them is at each of P positions
    keys_P: np.ndarray  # of the drawn counts, as is the seed
    # Latents of the cells at some positions -> where they go.
    move: Callable[[Tensor, np.ndarray], Tensor]
    # What is added to their log rates, (B, G); None for nothing.
    offset: Callable[[np.ndarray], Tensor] | None
    seed: int

    def __call__(self, at_B: np.ndarray) -> PredictedCells:
        """The cells at some positions."""
        cell_B = self.cell_P[at_B]
        z_BKD = self.z_NKD[torch.from_numpy(cell_B)]
        moved_BKD = self.move(z_BKD, at_B)
        offset_BG = None if self.offset is None else self.offset(at_B)
        cells, keys_B = self.cells.take(cell_B), self.keys_P[at_B[: n_unlike(at_B)]]
        return edit(self.autoencoder, cells, (z_BKD, moved_BKD), offset_BG, keys_B, self.seed)


@torch.no_grad()
def edit(
    autoencoder: Autoencoder,
    cells: Cells,
    ends: tuple[Tensor, Tensor],
    offset_BG: Tensor | None,
    keys_B: np.ndarray,
    seed: int,
    stream: int = COUNTS_STREAM,
) -> PredictedCells:
    """Write a move in the latent as an edit of B observed cells.

    `ends` are where they are and where they would be, both (B, K, D); `offset_BG` is added to the
    log rates after the move; keys, seed and stream are of the drawn counts, keys of the cells
    before a tile is filled up.
    """
    z_BKD, moved_BKD = ends
    size_B = torch.from_numpy(cells.size_factors)
    before = autoencoder.decode(z_BKD, size_B)
    after_BG = autoencoder.decode(moved_BKD, size_B).mean_BG
    if offset_BG is not None:
        # Never above the ceiling, except for what was there already.
        ceiling_BG = autoencoder.decoder.log_ceiling.exp() * (size_B[:, None] / 1e4)
        after_BG = torch.minimum(after_BG * offset_BG.exp(), torch.maximum(after_BG, ceiling_BG))
    mean_BG = before.counterfactual_mean(torch.from_numpy(cells.counts.toarray()), after_BG)
    drawn = draw_counterfactual_counts(
        before, cells.counts, after_BG.double().numpy(), keys_B, seed, stream
    )
    return PredictedCells(
        sparse.csr_matrix(mean_BG.numpy()),
        drawn,
        cells.size_factors,
        autoencoder.at_own_size(moved_BKD),
    )


def draw_counts(model: CountModel, keys: np.ndarray, seed: int) -> sparse.csr_matrix:
    """Draw the counts of B cells with keys of their own, int32 CSR, shape (B, G)."""
    drawn_BG = np.empty(tuple(model.mean_BG.shape), dtype=np.int32)
    for i, key in enumerate(keys):
        drawn_BG[i] = model.draw(i, cell_generator(seed, int(key)))
    drawn_BG[len(keys) :] = drawn_BG[len(keys) - 1]
    return sparse.csr_matrix(drawn_BG)


def draw_counterfactual_counts(
    model: CountModel,
    counts: sparse.csr_matrix,
    new_mean_BG: np.ndarray,
    keys: np.ndarray,
    seed: int,
    stream: int = COUNTS_STREAM,
) -> sparse.csr_matrix:
    """Draw the counts that B observed cells would have had under another expectation.

    The expectation of the draw is the distribution's ``counterfactual_mean``: transcripts that were
    seen stay with probability new / old where the expectation falls; where it rises, new ones come
    at the cell's own rate. An unchanged expectation gives the observed counts back exactly. `keys`,
    `seed` and `stream` are of the random numbers; the result is int32 CSR, shape (B, G).
    """
    seen_BG = counts.toarray().astype(np.int64)
    drawn_BG = np.empty(seen_BG.shape, dtype=np.int32)
    for i, key in enumerate(keys):
        rng = cell_generator(seed, int(key), stream)
        new_mean_G = new_mean_BG[i].astype(np.float64)
        drawn_BG[i] = model.draw_counterfactual(i, seen_BG[i], new_mean_G, rng)
    drawn_BG[len(keys) :] = drawn_BG[len(keys) - 1]
    return sparse.csr_matrix(drawn_BG)


def n_unlike(at_B: np.ndarray) -> int:
    """How many cells of a tile there are before the last of them fills it up.

    Only these need keys, in the two functions above: cells beyond the keys repeat the last.
    """
    return 1 + int(np.argmax(at_B == at_B[-1]))
