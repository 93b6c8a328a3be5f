"""Mini-batches of counts for stage one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from celldit.latent.autoencoder import Autoencoder
from celldit.latent.sparse_rows import SparseRows
from celldit.training.devices.parallel import rank_and_world

if TYPE_CHECKING:
    from celldit.data.store import CellStore


class CountBatch(NamedTuple):
    """A mini-batch of cells, ready for the device."""

    log: SparseRows
    counts: SparseRows
    size_B: Tensor


class CountBatches(Dataset[CountBatch]):
    """Mini-batches of cells in an order that changes with every epoch.

    Cells become dense on the device only. Those on disk are read a window ahead.
    """

    def __init__(
        self, cells: CellStore, model: Autoencoder, size: int, *, seed: int | None
    ) -> None:
        self.cells, self.model, self.size, self.seed = cells, model, size, seed
        self.epoch, self.first = 0, 0
        self.order = np.arange(cells.n_cells)
        self.reader = cells.reader(self.order)
        self.shuffle()

    def shuffle(self) -> None:
        """Draw the order of the next epoch."""
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            self.order = self.cells.shuffled(rng)
            self.reader = self.cells.reader(self.order)
            self.epoch += 1

    def start_at(self, epoch: int, batch: int) -> None:
        """Begin the next pass at this batch of this epoch of training."""
        # The first order is drawn when the batches are made, the next as each epoch starts.
        self.epoch, self.first = epoch + 1, batch
        self.shuffle()

    def __len__(self) -> int:
        return -(-self.cells.n_cells // self.size)

    def __getitem__(self, i: int) -> CountBatch:
        if i >= len(self):
            raise IndexError(i)
        rows = self.order[i * self.size : (i + 1) * self.size]
        if self.seed is not None:
            rank, world = rank_and_world()
            # A process without a share takes a cell that then counts for nothing.
            rows = rows[rank::world] if rank < len(rows) else rows[:1]
        cells = self.reader.take(rows)
        return CountBatch(
            SparseRows.of(cells.log_normalized()),
            SparseRows.of(cells.counts),
            torch.from_numpy(cells.size_factors),
        )


class CountOrder(Sampler[int]):
    """Batches one after the other, the first pass from where :meth:`CountBatches.start_at` says."""

    def __init__(self, batches: CountBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[int]:
        first, self.batches.first = self.batches.first, 0
        return iter(range(first, len(self.batches)))
