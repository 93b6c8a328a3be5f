"""Predicted cells straight to disk: a batch in memory at a time, and a file only when it is whole.

Everything goes to a temporary place beside the target and takes the target's name when all cells
are written and synced (:mod:`celldit.io.replacing`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem, sparse_dataset, write_elem
from scipy import sparse

from celldit.arguments import check_path
from celldit.data.disk.files import is_zarr
from celldit.errors import FileError, InputError
from celldit.io.replacing import made_whole
from celldit.io.sampling import Sampling, var_of

MATRICES = {"X": np.float32, "layers/counts": np.int32, "layers/mean": np.float32}
CHUNK = 1 << 18


def check_out(path: str | os.PathLike[str] | None, overwrite: bool) -> Path | None:
    """Refuse a path that cannot become the output, before any cell is sampled.

    InputError if the name ends in anything but ``.h5ad`` and ``.zarr``. FileError if the path
    exists and may not be replaced, or its folder cannot be written.
    """
    if path is None:
        return None
    target = check_path(path)
    if target.suffix not in (".h5ad", ".zarr"):
        raise InputError(f"out={str(target)!r} must end in .h5ad or .zarr.")
    if target.exists() and not overwrite:
        raise FileError(f"{target} exists already; choose another path or pass overwrite=True.")
    if target.exists() and target.is_dir() != (target.suffix == ".zarr"):
        kind = "a folder" if target.is_dir() else "a file"
        raise FileError(f"{target} is {kind}, so it will not be replaced; choose another path.")
    if target.is_dir() and any(target.iterdir()) and not is_zarr(target):
        raise FileError(
            f"{target} exists and is no zarr store, so it will not be replaced; choose another "
            "path."
        )
    if not target.parent.is_dir():
        raise FileError(f"{target.parent} is no folder; create it, or choose another path.")
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
            pass
    except OSError as error:
        raise FileError(f"Cannot write into {target.parent}: {error.strerror}.") from error
    return target


def stream(sampling: Sampling, target: Path) -> ad.AnnData:
    """Sample cells into a file that :func:`check_out` let pass.

    X and layers are left on disk: rows are read when they are asked for, and ``.to_memory()`` reads
    all.

    FileError if the disk cannot take it; nothing is left under the target's name that was not
    there. CellditError if a prediction is not finite.
    """
    with new_store(target) as root:
        _fill(root, sampling)
    return open_on_disk(target)


@contextmanager
def new_store(target: Path) -> Iterator[Any]:
    """An HDF5 file or zarr group to fill, which takes the target's name when all of it is there.

    FileError if the disk cannot take it; nothing is left under the target's name that was not
    there.
    """
    with made_whole(target) as partial, _created(partial) as root:
        for name in ("layers", "obsm", "obsp", "varm", "varp"):
            write_elem(root, name, {})
        yield root


def open_on_disk(path: Path) -> ad.AnnData:
    """Open what was written with X and layers left on disk; rows are read when asked for."""
    root: Any
    root = h5py.File(path, "r") if path.suffix == ".h5ad" else zarr.open_group(path, mode="r")

    def left(element: Any) -> Any:
        return sparse_dataset(element) if hasattr(element, "keys") else element

    return ad.AnnData(
        X=left(root["X"]),
        layers={name: left(root["layers"][name]) for name in root["layers"]},
        **{name: read_elem(root[name]) for name in ("obs", "var", "obsm", "uns")},
    )


class _Rows:
    """A CSR matrix on disk to which rows are added at the end."""

    def __init__(self, root: Any, name: str, dtype: Any, n_genes: int) -> None:
        self.group = root.create_group(name)
        self.n_genes, self.n_rows, self.n_values = n_genes, 0, 0
        # Columns repeat from row to row, so they shrink to next to nothing; values do not.
        self.data = growing_array(self.group, "data", dtype, (), compressed=dtype == np.int32)
        self.indices = growing_array(self.group, "indices", np.int32, (), compressed=True)
        self.indptr = growing_array(self.group, "indptr", np.int64, (), compressed=False)
        append_rows(self.indptr, np.zeros(1, dtype=np.int64))

    def append(self, matrix: sparse.csr_matrix) -> None:
        append_rows(self.data, matrix.data)
        append_rows(self.indices, matrix.indices)
        append_rows(self.indptr, matrix.indptr[1:].astype(np.int64) + self.n_values)
        self.n_rows += matrix.shape[0]
        self.n_values += matrix.nnz

    def close(self) -> None:
        """Say what it is; without this no reader takes it for a matrix."""
        shape = [self.n_rows, self.n_genes]
        as_array = isinstance(self.group, h5py.Group)
        self.group.attrs["encoding-type"] = "csr_matrix"
        self.group.attrs["encoding-version"] = "0.1.0"
        self.group.attrs["shape"] = np.array(shape) if as_array else shape


def _fill(root: Any, sampling: Sampling) -> None:
    n_genes = len(sampling.genes)
    rows = {name: _Rows(root, name, dtype, n_genes) for name, dtype in MATRICES.items()}
    latent: Any = None
    sizes = []
    for batch in sampling.batches():
        batch.check_finite()
        parts = {"X": batch.expression, "layers/counts": batch.counts, "layers/mean": batch.mean}
        for name, matrix in parts.items():
            rows[name].append(matrix)
        if latent is None:
            latent = growing_array(root["obsm"], "X_celldit", np.float32, batch.z.shape[1:])
        append_rows(latent, batch.z)
        sizes.append(batch.size_factors.astype(np.float32))
    for matrix_on_disk in rows.values():
        matrix_on_disk.close()
    latent.attrs["encoding-type"], latent.attrs["encoding-version"] = "array", "0.2.0"
    obs = sampling.obs.assign(size_factor=np.concatenate(sizes))
    finish(root, obs, sampling.genes, sampling.made_by)


def finish(
    root: Any, obs: pd.DataFrame, genes: tuple[str, ...], made_by: Mapping[str, Any]
) -> None:
    """Write what is not rows of a group from :func:`new_store`, and say that it is an AnnData."""
    write_elem(root, "obs", obs)
    write_elem(root, "var", var_of(genes))
    write_elem(root, "uns", {"celldit": dict(made_by)})
    # Last, so that no reader takes an unfinished group for an AnnData.
    root.attrs["encoding-type"], root.attrs["encoding-version"] = "anndata", "0.1.0"


def growing_array(
    group: Any, name: str, dtype: Any, tail: tuple[int, ...], *, compressed: bool = False
) -> Any:
    """An empty array whose first dimension grows."""
    chunks = (max(1, CHUNK // max(1, int(np.prod(tail)))), *tail)
    if isinstance(group, h5py.Group):
        squeeze = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        return group.create_dataset(
            name,
            shape=(0, *tail),
            maxshape=(None, *tail),
            dtype=dtype,
            chunks=chunks,
            **(squeeze if compressed else {}),
        )
    return group.create_array(name, shape=(0, *tail), dtype=dtype, chunks=chunks)


def append_rows(array: Any, values: np.ndarray) -> None:
    """Add rows at the end of an array from :func:`growing_array`."""
    start = array.shape[0]
    array.resize((start + len(values), *array.shape[1:]))
    if len(values):
        array[start:] = values


@contextmanager
def _created(path: Path) -> Iterator[Any]:
    if path.suffix == ".h5ad":
        with h5py.File(path, "w") as file:
            yield file
    else:
        yield zarr.open_group(path, mode="w", zarr_format=ad.settings.zarr_write_format)
