"""Cells on disk: columns in memory, counts read by blocks when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from celldit.data.cells import Cells
from celldit.data.counts import check_block, sizes_of, tidy
from celldit.data.disk.matrix import DiskMatrix
from celldit.data.fields import Fields
from celldit.data.genes import match_genes
from celldit.data.store import CellStore, Index, digest
from celldit.errors import FileError
from celldit.memory import give_back

#: Most cells that are read at once, and most stored counts in them.
WINDOW_CELLS = 65_536
WINDOW_ENTRIES = 1 << 24
#: Reading over so many cells is cheaper than beginning anew behind them.
GAP = 64
#: Most stored counts that are read at once.
SPAN_ENTRIES = 1 << 22
#: Counts expected of a part of a matrix that cannot all be zero by chance.
_SURELY_SEEN = 20.0


@dataclass(frozen=True, eq=False)
class StoredCells(CellStore):
    """N cells x G genes of raw counts in one or more files; see :func:`celldit.open_store`.

    Parameters
    ----------
    shards
        The files, whose cells follow one another.
    fields
        What the columns mean.
    genes, size_factors, perturbations, covariates, doses, times, control
        See :class:`celldit.data.CellStore`.
    packed_names
        Name of each cell in numpy's type of text, shape (N,): a third of the memory of objects.
    columns
        Positions in the files of the genes wanted, in the order wanted; None for all.
    rows
        Positions in the files of the cells wanted, ascending, shape (N,); None for all.
    """

    shards: tuple[DiskMatrix, ...]
    fields: Fields
    packed_names: np.ndarray
    columns: np.ndarray | None = None
    rows: np.ndarray | None = None

    @property
    def names(self) -> np.ndarray:
        """Name of each cell, object (str), shape (N,)."""
        return self.packed_names.astype(object)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the cells lie."""
        return tuple(shard.path for shard in self.shards)

    @property
    def on_disk(self) -> bool:
        """The counts are read from files."""
        return True

    def identity(self) -> str:
        """Text that is another one if other files, or changed ones, lie behind the cells."""
        chosen = [a for a in (self.rows, self.columns) if a is not None]
        parts = [shard.identity() for shard in self.shards] + [digest(a) for a in chosen]
        return " ".join(parts)

    def _picked(self, index: Index) -> dict[str, Any]:
        at = np.arange(self.n_cells)[index if isinstance(index, slice) else np.asarray(index)]
        return {
            **self.columns_of(at),
            "packed_names": self.packed_names[at],
            "rows": at if self.rows is None else self.rows[at],
        }

    def take(self, index: Index) -> Cells:
        picked = self._picked(index)
        names, rows = picked.pop("packed_names").astype(object), picked.pop("rows")
        counts = self._read(rows)
        return Cells(counts, genes=self.genes, names=names, control=self.control, **picked)

    def select(self, index: Index) -> StoredCells:
        picked = self._picked(index)
        if (np.diff(picked["rows"]) <= 0).any():
            raise ValueError("cells on disk are selected in their order")
        return replace(self, **picked)

    def with_genes(self, genes: Sequence[str]) -> StoredCells:
        """The same cells with other genes, or the same in another order.

        InputError if genes are missing, or cells have no counts in these.
        """
        columns = match_genes(self.genes, genes)
        columns = columns if self.columns is None else self.columns[columns]
        sizes = self.size_factors
        if self.fields.size_factor_key is None:
            sizes = library_sizes(self.shards, columns)
            sizes = sizes if self.rows is None else sizes[self.rows]
        return replace(self, genes=tuple(genes), columns=columns, size_factors=sizes)

    def blocks(self, size: int) -> Iterator[Cells]:
        # A thread reads a window of blocks while the one before is used.
        entries = max(shard.entries_per_row for shard in self.shards)
        window = int(min(WINDOW_CELLS, WINDOW_ENTRIES // max(1.0, entries)))
        window = max(1, window // size) * size
        with ThreadPoolExecutor(1, thread_name_prefix="celldit-reader") as thread:
            ahead = thread.submit(self.take, slice(0, window))
            for start in range(0, self.n_cells, window):
                cells = ahead.result()
                ahead = thread.submit(self.take, slice(start + window, start + 2 * window))
                yield from cells.blocks(size)
                del cells
                give_back()

    def _read(self, rows: np.ndarray) -> sparse.csr_matrix:
        """Counts of some rows of the files, in the order given."""
        distinct, back = np.unique(rows, return_inverse=True)
        parts = []
        first = 0
        for shard in self.shards:
            begin, end = np.searchsorted(distinct, [first, first + shard.shape[0]])
            parts += _read_shard(shard, distinct[begin:end] - first, self.columns)
            first += shard.shape[0]
        if not parts:
            return sparse.csr_matrix((0, self.n_genes), dtype=np.float32)
        counts = parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
        in_order = len(back) == len(distinct) and bool((np.diff(back) == 1).all())
        return sparse.csr_matrix(counts if in_order else counts[back])


def _read_shard(
    shard: DiskMatrix, rows: np.ndarray, columns: np.ndarray | None
) -> list[sparse.csr_matrix]:
    """Read ascending rows in spans of bounded size, reading over small gaps."""
    most = max(1, int(SPAN_ENTRIES // max(1.0, shard.entries_per_row)))
    parts = []
    for start, stop in _spans(rows, max(GAP, shard.chunk_rows), most):
        own = rows[start:stop]
        span = shard.rows(int(own[0]), int(own[-1]) + 1)
        if len(own) < span.shape[0]:
            span = span[own - own[0]]
        parts.append(tidy(span if columns is None else span[:, columns]))
    return parts


def _spans(rows: np.ndarray, gap: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut ascending rows where the next is far away or a span would become too long."""
    if not len(rows):
        return
    far = np.flatnonzero(np.diff(rows) > gap) + 1
    for start, stop in zip([0, *far], [*far, len(rows)], strict=True):
        while start < stop:
            end = min(stop, int(np.searchsorted(rows, rows[start] + most)))
            yield int(start), end
            start = end


def read_totals(shard: DiskMatrix, columns: np.ndarray | None) -> np.ndarray:
    """Total counts of each cell over the genes wanted; reads and checks every count."""
    if shard.lacks_chunks:
        refuse_lost_chunks(shard)
    most = max(1, int(SPAN_ENTRIES // max(1.0, shard.entries_per_row)))
    totals = []
    for start in range(0, shard.shape[0], most):
        rows = shard.rows(start, min(start + most, shard.shape[0]))
        check_block(rows, f"{shard.key} of {shard.path}")
        own = rows if columns is None else rows[:, columns]
        totals.append(np.asarray(own.sum(axis=1, dtype=np.float64)).ravel())
    return np.concatenate([*totals, np.zeros(0)])


def refuse_lost_chunks(shard: DiskMatrix) -> None:
    """Refuse a dense matrix with a part of zeros where its genes are seen in other cells.

    zarr need not write a part that is all zeros, so that one which is lost looks the same.
    """
    height, width = shard.chunk_rows, shard.chunk_columns
    starts = range(0, shard.shape[0], height)
    sums_RG = np.array([_gene_totals(shard, start, start + height) for start in starts])
    for start, own_G in zip(starts, sums_RG, strict=True):
        n_here = min(height, shard.shape[0] - start)
        rate_G = (sums_RG.sum(axis=0) - own_G) / max(1, shard.shape[0] - n_here)
        for gene in range(0, shard.shape[1], width):
            part = slice(gene, gene + width)
            if own_G[part].sum() == 0 and rate_G[part].sum() * n_here > _SURELY_SEEN:
                raise FileError(
                    f"{shard.key} of {shard.path} lacks a part on disk, which would be read as "
                    f"zeros (cells from {start}, genes from {gene}, which other cells express); "
                    "copy or write it again."
                )


def _gene_totals(shard: DiskMatrix, start: int, stop: int) -> np.ndarray:
    rows = shard.rows(start, min(stop, shard.shape[0]))
    return np.asarray(rows.sum(axis=0, dtype=np.float64)).ravel()


def library_sizes(shards: Sequence[DiskMatrix], columns: np.ndarray | None) -> np.ndarray:
    """Total counts of all cells, float32; InputError if some have none."""
    totals = [read_totals(shard, columns) for shard in shards]
    empty = [shard.path for shard, own in zip(shards, totals, strict=True) if (own == 0).any()]
    where = f", the first of them in {empty[0]}" if empty else ""
    return sizes_of(np.concatenate(totals), where)
