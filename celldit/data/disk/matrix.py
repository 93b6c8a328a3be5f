"""Rows of a count matrix that stays on disk, in an ``.h5ad`` file or a ``.zarr`` folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from celldit.arguments import check_known
from celldit.data.disk.files import (
    check_no_links,
    file_at,
    missing_chunks,
    opened,
    refuse_missing_chunks,
)
from celldit.data.disk.pointers import check_indices, check_indptr
from celldit.errors import FileError, InputError, reason_of

#: How anndata 0.6 said what is called an encoding now.
_OLD_ENCODINGS = {"csr": "csr_matrix", "csc": "csc_matrix"}


class DiskMatrix:
    """A count matrix on disk, read by ranges of rows.

    A file that changes after it was opened is an error: half of a training would be on other data.

    FileError if the file cannot be read. InputError if the matrix is missing, is stored by columns,
    or holds no numbers. UnknownNameError if there is no such layer.

    `indptr` says where each row begins among the stored entries, int64; None for a dense matrix.
    The disk must read about `chunk_rows` rows for any one of them. `lacks_chunks` says whether
    parts of a dense matrix, of `chunk_columns` genes each, are not on disk: they are zeros or lost.
    """

    lacks_chunks, chunk_columns = False, 0

    def __init__(self, path: Path, counts_layer: str | None) -> None:
        self.path = path
        self.key = "X" if counts_layer is None else f"layers/{counts_layer}"
        self.indptr: np.ndarray | None = None
        check_no_links(path)
        with opened(path) as root:
            if counts_layer is not None:
                known = list(root["layers"].keys()) if "layers" in root else []
                check_known([counts_layer], known, f"layer in {path}")
            if self.key not in root:
                raise InputError(f"{path} has no X; name the layer of counts with counts_layer=...")
            self._look_at(root[self.key])
        self._stamp = self._state()

    def _look_at(self, matrix: Any) -> None:
        """Find shape and pointers of a matrix, and whether all of it is there."""
        old = str(matrix.attrs.get("h5sparse_format", "array"))
        encoding = str(matrix.attrs.get("encoding-type", _OLD_ENCODINGS.get(old, old)))
        what = f"{self.key} of {self.path}"
        if encoding == "csr_matrix":
            data, indices = matrix["data"], matrix["indices"]
            shape = matrix.attrs["shape" if "shape" in matrix.attrs else "h5sparse_shape"]
            n_rows, n_genes = (int(n) for n in shape)
            for name in ("data", "indices", "indptr"):
                refuse_missing_chunks(matrix[name], f"{self.key}/{name}", self.path)
            indptr = np.asarray(matrix["indptr"][:])
            if data.shape != indices.shape:
                raise InputError(
                    f"{what} is damaged, since it has {data.shape[0]} values for "
                    f"{indices.shape[0]} column numbers; write it again from the data that it was "
                    "made of."
                )
            check_indptr(indptr, n_rows, int(data.shape[0]), what)
            self.indptr = indptr.astype(np.int64)
            self.chunk_rows = _chunk_rows(data, max(1.0, int(data.shape[0]) / max(1, n_rows)))
        elif encoding == "array" and not hasattr(matrix, "keys") and len(matrix.shape) == 2:
            data = matrix
            n_rows, n_genes = (int(n) for n in matrix.shape)
            self.chunk_rows = int(matrix.chunks[0]) if matrix.chunks else 1
            self.chunk_columns = int(matrix.chunks[1]) if matrix.chunks else n_genes
            self.lacks_chunks = missing_chunks(matrix) > 0
        else:
            how = "by columns (CSC)" if encoding == "csc_matrix" else f"as {encoding!r}"
            raise InputError(
                f"{what} is stored {how}, of which no rows can be read; read it with "
                "anndata, convert it with scipy.sparse.csr_matrix, and write it again."
            )
        if np.dtype(data.dtype).kind not in "biuf":
            raise InputError(f"{what} has the type {data.dtype}, not numbers.")
        self.shape = n_rows, n_genes

    @property
    def entries_per_row(self) -> float:
        """Stored entries of a cell, on average."""
        stored = self.shape[0] * self.shape[1] if self.indptr is None else int(self.indptr[-1])
        return stored / max(1, self.shape[0])

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Read the rows from `start` up to `stop` as they are stored.

        FileError if the file changed or vanished since it was opened, or cannot be read. InputError
        if a column number lies outside the matrix.
        """
        self.check_unchanged()
        try:
            with file_at(self.path) as root:
                return self._rows(root[self.key], start, stop)
        except InputError:
            raise
        except MemoryError as error:
            raise FileError(
                f"Cells {start} to {stop} of {self.path} need more memory than there is; write it "
                "in smaller chunks, or use fewer genes."
            ) from error
        except Exception as error:  # h5py, zarr and their codecs raise what they like
            self.check_unchanged()
            raise FileError(
                f"Cells {start} to {stop} of {self.path} cannot be read ({reason_of(error)}); "
                "the file is damaged, so write it again."
            ) from error

    def _rows(self, matrix: Any, start: int, stop: int) -> sparse.csr_matrix:
        if self.indptr is None:
            return sparse.csr_matrix(np.asarray(matrix[start:stop]))
        span = slice(int(self.indptr[start]), int(self.indptr[stop]))
        indices = np.asarray(matrix["indices"][span])
        check_indices(indices, self.shape[1], f"{self.key} of {self.path}")
        parts = (
            np.asarray(matrix["data"][span]),
            indices,
            self.indptr[start : stop + 1] - self.indptr[start],
        )
        return sparse.csr_matrix(parts, shape=(stop - start, self.shape[1]))

    def check_unchanged(self) -> None:
        """Raise FileError if the file is not the one that was opened."""
        now = self._state()
        if now == self._stamp:
            return
        what = "changed" if all(size >= 0 for size, _ in now) else "vanished"
        raise FileError(
            f"{self.path} {what} while it was in use, so its cells cannot be trusted any more; "
            "leave it as it is until training is over, and open it again."
        )

    def identity(self) -> str:
        """Text that is another one for another file: path, size and time of the last change."""
        return f"{self.path.resolve()}:{self.key}:{self._stamp}"

    def _state(self) -> tuple[tuple[int, int], ...]:
        """Size and time of the file; of a folder's matrix, of what changes when a chunk does."""
        if self.path.suffix == ".h5ad" or self.path.is_file():
            return (_state_of(self.path),)
        folder = self.path / self.key
        arrays = [folder] if self.indptr is None else [folder / n for n in ("data", "indices")]
        watched = [folder, *arrays, *(a / n for a in arrays for n in ("c", "zarr.json", ".zarray"))]
        # A file that never was (the other zarr version's) must not look like one that vanished.
        states = [_state_of(p) for p in watched[: 1 + len(arrays)]]
        return (*states, *(_state_of(p) for p in watched[1 + len(arrays) :] if p.exists()))


def _state_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (-1, -1)
    # A folder's size is the file system's affair.
    return (0 if path.is_dir() else found.st_size), found.st_mtime_ns


def _chunk_rows(data: Any, entries_per_row: float) -> int:
    chunks = getattr(data, "shards", None) or data.chunks
    return max(1, round(chunks[0] / entries_per_row)) if chunks else 1
