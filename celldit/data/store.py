"""One interface over cells in memory and cells on disk.

What is small (labels, covariates, library sizes) is in memory in both. Counts are asked for as
:class:`celldit.data.Cells`, that is cells in memory: some rows (:meth:`CellStore.take`), or all in
blocks (:meth:`CellStore.blocks`). Whoever uses only these never holds more than a block, however
many cells there are.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from celldit.data.labels.columns import join_contexts

if TYPE_CHECKING:
    from celldit.data.cells import Cells

#: What is known of every cell, in memory, beside its name.
PER_CELL = ("size_factors", "perturbations", "covariates", "doses", "times")

Index = np.ndarray | Sequence[int] | slice


def digest(*arrays: np.ndarray) -> str:
    """Sixteen hexadecimal digits that name some arrays."""
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


@dataclass(frozen=True, eq=False, kw_only=True)
class CellStore(ABC):
    """N cells x G genes of raw counts, in memory or on disk, with what was done to each cell.

    Parameters
    ----------
    genes
        G gene names.
    size_factors
        Library size of each cell in counts, float32, shape (N,), all above 0.
    perturbations
        Canonical label of each cell, object (str), shape (N,); see
        :mod:`celldit.data.labels.labels`.
    covariates
        N rows, one column of strings for each covariate; may have no columns.
    doses
        Shape (N,): float64, or text such as ``"0.5+1"`` in the order of the label's parts; or None.
    times
        float64, shape (N,), or None.
    control
        The label of unperturbed cells.

    Attributes
    ----------
    names
        Name of each cell, object (str), shape (N,).
    """

    genes: tuple[str, ...]
    size_factors: np.ndarray
    perturbations: np.ndarray
    covariates: pd.DataFrame
    doses: np.ndarray | None
    times: np.ndarray | None
    control: str

    if TYPE_CHECKING:

        @property
        def names(self) -> np.ndarray: ...

    @property
    def on_disk(self) -> bool:
        """Whether the counts are read from files when they are asked for."""
        return False

    @abstractmethod
    def identity(self) -> str:
        """Text that is another one for other counts; of files, their state says so."""

    @property
    def n_cells(self) -> int:
        """Number of cells, N."""
        return len(self.size_factors)

    @property
    def n_genes(self) -> int:
        """Number of genes, G."""
        return len(self.genes)

    @cached_property
    def is_control(self) -> np.ndarray:
        """Whether each cell is unperturbed, bool, shape (N,)."""
        return np.asarray(self.perturbations == self.control, dtype=bool)

    @cached_property
    def contexts(self) -> np.ndarray:
        """Covariate values of each cell joined with ``" | "``, object (str), shape (N,)."""
        return join_contexts(self.covariates)

    def columns_of(self, rows: np.ndarray) -> dict[str, Any]:
        """What is known of the cells at some positions, by the names of :data:`PER_CELL`."""
        found: dict[str, Any] = {name: getattr(self, name) for name in PER_CELL}
        for name, values in found.items():
            if name == "covariates":
                found[name] = values.iloc[rows].reset_index(drop=True)
            elif values is not None:
                found[name] = values[rows]
        return found

    @abstractmethod
    def take(self, index: Index) -> Cells:
        """Bring cells into memory, by positions, a boolean mask or a slice, in the order given."""

    @abstractmethod
    def select(self, index: Index) -> CellStore:
        """Pick cells as :meth:`take` does, but leave on disk what is there."""

    @abstractmethod
    def blocks(self, size: int) -> Iterator[Cells]:
        """Give all cells in order, `size` at a time."""
