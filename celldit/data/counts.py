"""Raw counts out of an AnnData, whatever the storage, checked in one pass without a dense copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anndata as ad
import h5py
import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from celldit.arguments import check_known
from celldit.data.disk.pointers import check_sparse, owner_of
from celldit.data.not_counts import check_counted
from celldit.errors import InputError

_BLOCK_ROWS = 4096
_PROBE_ENTRIES = 100_000
_INTEGER_TOLERANCE, _FURTHEST = 1e-6, 0.05
#: More than log1p of any count per ten thousand, or per million.
_LARGEST_LOG = 20.0
#: Above this, float32 no longer holds every whole number, and no cell has so many molecules.
_HIGHEST_COUNT = 2**24
LOAD = (
    "Store them in a layer and pass counts_layer=... to CellDiT.setup_anndata, or load the "
    "unnormalised data."
)


def where(counts_layer: str | None) -> str:
    """Name the matrix as a user would write it."""
    return "adata.X" if counts_layer is None else f"adata.layers[{counts_layer!r}]"


def select_matrix(adata: ad.AnnData, counts_layer: str | None) -> Any:
    """Pick the matrix that should hold the counts, unread if it lies on disk.

    UnknownNameError if there is no such layer. InputError if the matrix is missing, has no cells or
    no genes, is of a kind that cannot be read, or is sparse and points outside itself.
    """
    if counts_layer is not None and not isinstance(counts_layer, str):
        raise InputError(
            f"counts_layer takes the name of a layer as text, not {type(counts_layer).__name__}."
        )
    if counts_layer is not None:
        check_known([counts_layer], adata.layers.keys(), "layer in adata.layers")
    if adata.n_obs == 0 or adata.n_vars == 0:
        lacking = "cells" if adata.n_obs == 0 else "genes"
        raise InputError(f"The AnnData has no {lacking} (shape {adata.n_obs} x {adata.n_vars}).")
    owner = owner_of(adata)
    # Before a view cuts it, which compiled code does.
    check_sparse(_matrix(owner, counts_layer), where(counts_layer))
    matrix = _matrix(adata, counts_layer)
    if matrix is None:
        raise InputError(
            "adata.X is empty; store raw counts in it, or name a layer that holds them with "
            "counts_layer=..."
        )
    readable = (np.ndarray, h5py.Dataset, CSRDataset, CSCDataset)
    if not (isinstance(matrix, readable) or sparse.issparse(matrix)):
        raise InputError(
            f"{where(counts_layer)} is a {type(matrix).__name__}, which cannot be read as a count "
            "matrix; bring it into memory first, with adata = adata.to_memory()."
        )
    if np.dtype(matrix.dtype).kind not in "biuf":
        raise InputError(
            f"{where(counts_layer)} has the type {matrix.dtype}, not numbers; store raw counts."
        )
    return matrix


def _matrix(adata: ad.AnnData, counts_layer: str | None) -> Any:
    return adata.X if counts_layer is None else adata.layers[counts_layer]


def check_counts(adata: ad.AnnData, counts_layer: str | None) -> np.ndarray:
    """Verify that a matrix holds raw counts, and sum each cell, float64, shape (N,).

    InputError if values are missing, infinite, negative or not whole numbers. UnknownNameError if
    there is no such layer.
    """
    blocks = _checked_blocks(adata, counts_layer)
    return np.concatenate([np.asarray(b.sum(axis=1, dtype=np.float64)).ravel() for b in blocks])


def read_counts(
    adata: ad.AnnData, counts_layer: str | None, columns: np.ndarray | None = None
) -> sparse.csr_matrix:
    """Read raw counts as float32 CSR, checked as by :func:`check_counts`.

    With `columns`, the positions of genes, those alone in their order. The memory of the matrix is
    its own: changing it does not change ``adata``.
    """
    blocks = _checked_blocks(adata, counts_layer)
    parts = [b if columns is None else sparse.csr_matrix(b[:, columns]) for b in blocks]
    counts = parts[0] if len(parts) == 1 else sparse.csr_matrix(sparse.vstack(parts, format="csr"))
    return _whole_counts(counts)


def tidy(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Bring stored rows of counts to the form of :func:`read_counts`; they must be whole."""
    data = counts.data.astype(np.float32)
    return _whole_counts(
        sparse.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)
    )


def sizes_of(totals_N: np.ndarray, where: str = "") -> np.ndarray:
    """Library sizes, float32, of sums of counts; InputError if some are 0, which `where` tells."""
    n_empty = int((totals_N == 0).sum())
    if n_empty:
        raise InputError(
            f"{n_empty} of {len(totals_N)} cells have no counts in these genes{where}; remove them "
            "with sc.pp.filter_cells(adata, min_counts=1), or name a column of library sizes with "
            "size_factor_key=..."
        )
    return totals_N.astype(np.float32)


def _whole_counts(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    # Stored as floats, counts may be off by rounding errors; a likelihood wants whole numbers.
    np.rint(counts.data, out=counts.data)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def check_block(
    block: Any, name: str, remedy: Callable[[], str] = lambda: LOAD
) -> sparse.csr_matrix:
    """Refuse rows that hold no raw counts, as :func:`check_values`, and copy them as float32."""
    if sparse.issparse(block):
        check_values(block.data, name, remedy)
        rows = sparse.csr_matrix(block)
        parts = rows.data.astype(np.float32), rows.indices.copy(), rows.indptr.copy()
        floats = sparse.csr_matrix(parts, shape=rows.shape)
    else:
        check_values(block, name, remedy)
        floats = sparse.csr_matrix(np.asarray(block).astype(np.float32))
    check_counted(floats, name, remedy)
    return floats


def _checked_blocks(adata: ad.AnnData, counts_layer: str | None) -> Iterator[sparse.csr_matrix]:
    matrix, name = select_matrix(adata, counts_layer), where(counts_layer)
    if isinstance(matrix, CSCDataset):
        matrix = matrix.to_memory()
    if sparse.issparse(matrix):
        matrix = sparse.csr_matrix(matrix)
    for start in range(0, matrix.shape[0], _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS]
        yield check_block(block, name, lambda: _remedy(adata, counts_layer))


def check_values(values: np.ndarray, name: str, remedy: Callable[[], str] = lambda: LOAD) -> None:
    """Refuse values, of any shape, that are missing, infinite, negative or not whole numbers.

    For the message, `name` says what holds them and `remedy` what to do instead.
    """
    if values.size == 0 or values.dtype.kind == "b":
        return
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # whose numbers do not reach the bounds below
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        n_bad = int(values.size - np.isfinite(values).sum())
        raise InputError(
            f"{name} holds NaN or infinite values ({n_bad} in the part read so far); "
            "celldit needs raw counts, so replace or remove them."
        )
    if values.dtype.kind != "u" and values.min() < 0:
        raise InputError(
            f"{name} holds negative values (lowest {values.min():.4g}), as scaled data do; "
            f"celldit needs raw counts. {remedy()}"
        )
    if values.max() > _HIGHEST_COUNT:
        raise InputError(
            f"{name} holds values above {_HIGHEST_COUNT:,} (highest {float(values.max()):.4g}), "
            f"which are no counts of molecules; celldit needs raw counts. {remedy()}"
        )
    if values.dtype.kind == "f" and (off := _off(values)).any():
        broken = values[off][0]
        raise InputError(
            f"{name} holds values that are not whole numbers (such as {broken:.4g}), as normalised "
            f"or log-transformed data do; celldit needs raw counts. {remedy()}{_rounding(values)}"
        )


def _off(values: np.ndarray) -> np.ndarray:
    """Which values are further from a whole number than float32 loses on the way to log1p and back.

    That is about a tenth of a millionth of the logarithm, and so of the value, times ten or so.
    """
    allowed = np.minimum(_INTEGER_TOLERANCE * (1 + 10 * np.abs(values)), _FURTHEST)
    return np.asarray(np.abs(values - np.rint(values)) > allowed)


def _rounding(values: np.ndarray) -> str:
    """Fractions among numbers too large for logarithms: counts that a tool corrected, it may be."""
    if float(values.max()) <= _LARGEST_LOG:
        return ""
    return (
        " If they are counts that were corrected for background or shared reads, round them first: "
        'adata.layers["rounded"] = scipy.sparse.csr_matrix(adata.X).rint(), and pass '
        'counts_layer="rounded" to CellDiT.setup_anndata.'
    )


def _remedy(adata: ad.AnnData, counts_layer: str | None) -> str:
    """Point at a matrix of the same AnnData that looks like counts."""
    adata = owner_of(adata)
    if counts_layer is not None and adata.X is not None and _looks_like_counts(adata.X):
        return "adata.X looks like counts: leave counts_layer out of CellDiT.setup_anndata."
    for layer in adata.layers:
        if layer != counts_layer and _looks_like_counts(adata.layers[layer]):
            return (
                f"adata.layers[{layer!r}] looks like counts: pass counts_layer={layer!r} to "
                "CellDiT.setup_anndata."
            )
    if adata.raw is not None and _looks_like_counts(adata.raw.X):
        return "adata.raw looks like counts: pass adata.raw.to_adata() instead of adata."
    return LOAD


def _looks_like_counts(matrix: Any) -> bool:
    """Guess from the first entries; a hint in an error message need not be certain."""
    if isinstance(matrix, (CSRDataset, CSCDataset)):
        matrix = matrix[:256] if isinstance(matrix, CSRDataset) else matrix[:, :256]
    if sparse.issparse(matrix):
        values = matrix.data[:_PROBE_ENTRIES]
    elif isinstance(matrix, (np.ndarray, h5py.Dataset)) and matrix.ndim == 2:
        rows = max(1, _PROBE_ENTRIES // max(1, matrix.shape[1]))
        values = np.asarray(matrix[:rows]).ravel()
    else:
        return False
    if values.size == 0 or values.dtype.kind not in "biuf":
        return False
    values = values.astype(np.float64)
    return bool(np.isfinite(values).all() and values.min() >= 0 and not _off(values).any())
