"""Shuffling and reading cells on disk a window at a time.

A disk reads neighbouring cells a hundred times faster than scattered ones. So blocks of neighbours
are drawn in random order, some dozens of blocks make a window, and the cells of a window are
shuffled in memory: the block shuffling of scDataset (D'Ascenzo & Cultrera di Montesano 2025,
arXiv:2506.01883). The next window is read by a thread of its own while this one is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from celldit.data.cells import Cells
from celldit.memory import give_back

if TYPE_CHECKING:
    from celldit.data.store import CellStore

__all__ = ["WindowReader", "block_shuffle"]


def block_shuffle(n: int, window: int, block: int, rng: np.random.Generator) -> np.ndarray:
    """Order n positions such that every window of it lies in few blocks of neighbours.

    Parameters
    ----------
    n
        Number of positions.
    window
        Positions that are shuffled with one another. If all fit into one window, this is a plain
        permutation, the same as for cells in memory.
    block
        Neighbours that stay in one window.
    rng
        Of the order.

    Returns
    -------
    numpy.ndarray of int64, shape (n,)
    """
    if n <= window:
        return rng.permutation(n)
    starts = rng.permutation(-(-n // block)) * block
    per_window = max(1, window // block)
    parts = []
    for first in range(0, len(starts), per_window):
        some = (starts[first : first + per_window, None] + np.arange(block)).ravel()
        parts.append(rng.permutation(some[some < n]))
    return np.concatenate(parts)


class WindowReader:
    """Reads cells in about the order announced; any other order works, but slowly.

    Parameters
    ----------
    cells
        The store.
    order
        All its positions in the order in which they will be asked for.
    window
        Cells read at once. Two windows and what is being read are in memory.
    """

    def __init__(self, cells: CellStore, order: np.ndarray, window: int) -> None:
        self.cells, self.order, self.window = cells, order, window
        self.window_of = np.empty(len(order), dtype=np.int32)
        self.window_of[order] = np.arange(len(order)) // window
        self._windows: dict[int, Future[_Window]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def take(self, rows: np.ndarray) -> Cells:
        """Read the cells at some positions, in the order given."""
        wanted = self.window_of[rows]
        needed = np.unique(wanted)
        for old in [w for w in self._windows if w not in needed and w != needed[-1] + 1]:
            del self._windows[old]
            give_back()
        for number in (*needed.tolist(), int(needed[-1]) + 1):
            self._ask_for(number)
        found = [self._windows[number].result() for number in needed.tolist()]
        if len(found) == 1:
            return found[0].take(rows)
        parts = [w.take(rows[wanted == n]) for w, n in zip(found, needed, strict=True)]
        # Where each row is among the parts: they hold the rows window by window.
        place = np.empty(len(rows), dtype=np.int64)
        place[np.argsort(wanted, kind="stable")] = np.arange(len(rows))
        return concatenate(parts).take(place)

    def _ask_for(self, number: int) -> None:
        rows = self.order[number * self.window : (number + 1) * self.window]
        if number in self._windows or not len(rows):
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="celldit-reader")
        self._windows[number] = self._thread.submit(_Window.read, self.cells, rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_windows": {}, "_thread": None}


class _Window:
    """Cells in memory, found by their positions in the store."""

    def __init__(self, cells: Cells, rows: np.ndarray) -> None:
        self.cells, self.rows = cells, rows

    @classmethod
    def read(cls, store: CellStore, rows: np.ndarray) -> _Window:
        # Ascending, as they lie on disk: nothing has to be moved after reading.
        ascending = np.sort(rows)
        return cls(store.take(ascending), ascending)

    def take(self, rows: np.ndarray) -> Cells:
        return self.cells.take(np.searchsorted(self.rows, rows))


def concatenate(parts: Sequence[Cells]) -> Cells:
    """Put cells of one store one after the other."""
    first = parts[0]

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)

    return Cells(
        sparse.csr_matrix(sparse.vstack([part.counts for part in parts], format="csr")),
        joined("size_factors"),
        first.genes,
        joined("perturbations"),
        pd.concat([part.covariates for part in parts], ignore_index=True),
        joined("doses"),
        joined("times"),
        joined("names"),
        first.control,
    )
