"""Row and column numbers of sparse matrices, checked before compiled code follows them.

A sparse matrix says with numbers where its entries lie. Compiled code follows them unseen, so a
wrong one reads or writes memory that belongs to something else. Files are damaged, and matrices put
together by hand, so celldit looks at these numbers before it hands a matrix to scipy.
"""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from celldit.errors import InputError

#: Stored entries of a matrix on disk that are looked at together.
_BLOCK = 1 << 22
_REMEDY = "write it again from the data that it was made of"


def owner_of(adata: ad.AnnData) -> ad.AnnData:
    """The AnnData whose matrices a view would cut: only they can be looked at uncut."""
    return adata._adata_ref if adata.is_view else adata


def check_matrices(adata: ad.AnnData, name: str) -> None:
    """Refuse an AnnData with a matrix anywhere that :func:`check_sparse` refuses.

    To cut an AnnData is to cut all of them, be they used or not.
    """
    owner = owner_of(adata)
    for part in ("layers", "obsm", "varm", "obsp", "varp"):
        for key, matrix in getattr(owner, part).items():
            check_sparse(matrix, f"{name}.{part}[{key!r}]")
    if owner.raw is not None:
        check_sparse(owner.raw.X, f"{name}.raw.X")
    check_sparse(owner.X, f"{name}.X")


def check_sparse(matrix: Any, name: str) -> None:
    """Refuse a sparse matrix whose row or column numbers lie outside it.

    It is in memory, or what anndata gives of one on disk, which is read by blocks; anything else
    passes.
    """
    if isinstance(matrix, (CSRDataset, CSCDataset)):
        _check_stored(matrix, name)
    elif sparse.issparse(matrix) and matrix.format in ("csr", "csc"):
        by_rows = matrix.format == "csr"
        n_major, n_minor = matrix.shape if by_rows else matrix.shape[::-1]
        n_entries = min(len(matrix.data), len(matrix.indices))
        check_indptr(matrix.indptr, n_major, n_entries, name)
        check_indices(matrix.indices[: int(matrix.indptr[-1])], n_minor, name)
    elif sparse.issparse(matrix) and matrix.format == "coo":
        for axis, numbers in enumerate(matrix.coords):
            check_indices(numbers, matrix.shape[axis], name)


def check_indptr(indptr: np.ndarray, n_rows: int, n_entries: int, name: str) -> None:
    """Refuse beginnings of rows (of columns, in CSC) that do not lie in order among the entries.

    There are ``n_rows + 1``, the last being where the last row ends.
    """
    wrong = None
    if indptr.ndim != 1 or indptr.dtype.kind not in "iu":
        wrong = "its row pointers are no list of whole numbers"
    elif len(indptr) != n_rows + 1:
        wrong = f"it has {len(indptr)} row pointers where its shape needs {n_rows + 1}"
    elif indptr[0] != 0 or indptr[-1] > n_entries:
        wrong = f"its row pointers run from {indptr[0]} to {indptr[-1]} over {n_entries} entries"
    elif (indptr[1:] < indptr[:-1]).any():
        wrong = "its row pointers fall, where each must be at least the one before it"
    if wrong is not None:
        raise InputError(f"{name} is damaged, since {wrong}; {_REMEDY}.")


def check_indices(indices: np.ndarray, n_columns: int, name: str) -> None:
    """Refuse column numbers (row numbers, in CSC) outside 0 to `n_columns` - 1."""
    wrong = None
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        wrong = "its column numbers are no list of whole numbers"
    elif len(indices) and (indices.min() < 0 or indices.max() >= n_columns):
        found = indices[(indices < 0) | (indices >= n_columns)][0]
        wrong = f"an entry lies at position {found}, where positions end at {n_columns - 1}"
    if wrong is not None:
        raise InputError(f"{name} is damaged, since {wrong}; {_REMEDY}.")


def _check_stored(matrix: Any, name: str) -> None:
    group, (n_rows, n_columns) = matrix.group, matrix.shape
    n_major, n_minor = (
        (n_rows, n_columns) if isinstance(matrix, CSRDataset) else (n_columns, n_rows)
    )
    indices = group["indices"]
    n_entries = min(int(group["data"].shape[0]), int(indices.shape[0]))
    check_indptr(np.asarray(group["indptr"][:]), n_major, n_entries, name)
    for start in range(0, int(indices.shape[0]), _BLOCK):
        check_indices(np.asarray(indices[start : start + _BLOCK]), n_minor, name)
