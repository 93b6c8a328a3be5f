"""Wrong row and column numbers of sparse matrices are found before compiled code follows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from celldit import CellDiT, open_store
from celldit.data import Fields, check_no_leak
from celldit.data.cells import Cells
from celldit.data.disk.pointers import check_sparse
from celldit.data.reading import read_any
from celldit.errors import CellditError, InputError
from celldit.io.files import read_h5ad

FIELDS = Fields("perturbation")
OUTSIDE = [8, 9, 31, 2**31 - 1, -1, -(2**31)]


def cells(kind: Callable[[Any], Any] = sparse.csr_matrix) -> ad.AnnData:
    counts = np.random.default_rng(0).poisson(2.0, (30, 8)).astype(np.int32) + 1
    obs = pd.DataFrame(
        {"perturbation": ["control", "A", "B"] * 10}, index=[f"c{i}" for i in range(30)]
    )
    return ad.AnnData(kind(counts), obs=obs, layers={"counts": kind(counts)})


def break_indptr(indptr: Any, how: str) -> None:
    """Whatever the array, in memory or on disk, is written by position."""
    if how == "falling":
        indptr[3] = int(indptr[4]) + 5
    elif how == "negative":
        indptr[2] = -4
    elif how == "beyond":
        indptr[len(indptr) - 1 if hasattr(indptr, "__len__") else indptr.shape[0] - 1] = 10**6
    else:
        indptr[0] = 1


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("number", OUTSIDE)
def test_positions_outside_a_matrix_in_memory(kind: Any, number: int) -> None:
    # By columns the numbers are those of cells, of which there are 30.
    outside = number if number < 0 or kind is not sparse.csc_matrix else number + 30
    if outside > 2**31 - 1:
        pytest.skip("no such number in int32")
    for layer in (None, "counts"):
        adata = cells(kind)
        (adata.X if layer is None else adata.layers["counts"]).indices[7] = outside
        with pytest.raises(InputError, match=f"position {outside}"):
            CellDiT.setup_anndata(adata, perturbation_key="perturbation", counts_layer=layer)
        with pytest.raises(InputError, match=f"position {outside}"):
            Cells.from_anndata(adata, Fields("perturbation", counts_layer=layer))
        for view in (adata[5:20], adata[:, [3, 1]], adata[np.arange(30) % 2 == 0]):
            with pytest.raises(InputError, match=f"position {outside}"):
                CellDiT.setup_anndata(view, perturbation_key="perturbation", counts_layer=layer)


@pytest.mark.parametrize("how", ["falling", "negative", "beyond", "start"])
def test_rows_that_begin_nowhere_in_memory(how: str) -> None:
    for kind in (sparse.csr_matrix, sparse.csc_matrix):
        adata = cells(kind)
        break_indptr(adata.X.indptr, how)
        for given in (adata, adata[5:20]):
            with pytest.raises(InputError, match="row pointers"):
                CellDiT.setup_anndata(given, perturbation_key="perturbation")


def test_matrices_by_coordinates() -> None:
    matrix = sparse.coo_matrix(np.eye(4))
    matrix.coords[1][0] = 4
    with pytest.raises(InputError, match="position 4"):
        check_sparse(matrix, "matrix")
    check_sparse(sparse.coo_matrix(np.eye(4)), "matrix")


def write(adata: ad.AnnData, path: Path) -> Path:
    adata.write_zarr(path) if path.suffix == ".zarr" else adata.write_h5ad(path)
    return path


def spoil(path: Path, key: str, change: Callable[[Any], None]) -> None:
    if path.suffix == ".zarr":
        change(zarr.open_group(path, mode="r+")[key])
    else:
        with h5py.File(path, "r+") as file:
            change(file[key])


def entry(number: int) -> Callable[[Any], None]:
    def change(array: Any) -> None:
        array[7] = number

    return change


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.parametrize("layer", [None, "counts"])
def test_positions_outside_a_matrix_on_disk(tmp_path: Path, ending: str, layer: str | None) -> None:
    key = "X" if layer is None else f"layers/{layer}"
    fields = Fields("perturbation", counts_layer=layer)
    for number in OUTSIDE:
        path = write(cells(), tmp_path / f"{number}{ending}")
        spoil(path, f"{key}/indices", entry(number))
        with pytest.raises(CellditError, match=f"position {number}"):
            open_store(path, perturbation_key="perturbation", counts_layer=layer)
        with pytest.raises(CellditError, match=f"position {number}"):
            read_any(path, fields)
        if ending == ".h5ad":
            backed = ad.read_h5ad(path, backed="r")
            for given in (backed, backed[3:9], backed[:, [5, 2]]):
                with pytest.raises(CellditError, match=f"position {number}"):
                    read_any(given, fields)
            with pytest.raises(CellditError, match=f"position {number}"):
                CellDiT.setup_anndata(backed, perturbation_key="perturbation", counts_layer=layer)
            with pytest.raises(CellditError, match=f"position {number}"):
                read_h5ad(path)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.parametrize("how", ["falling", "negative", "beyond", "start"])
def test_rows_that_begin_nowhere_on_disk(tmp_path: Path, ending: str, how: str) -> None:
    path = write(cells(), tmp_path / f"cells{ending}")
    spoil(path, "X/indptr", lambda indptr: break_indptr(indptr, how))
    with pytest.raises(CellditError, match="row pointers"):
        open_store(path, perturbation_key="perturbation")
    if ending == ".h5ad":
        backed = ad.read_h5ad(path, backed="r")
        for given in (backed, backed[3:9]):
            with pytest.raises(CellditError, match="row pointers"):
                read_any(given, FIELDS)


def test_columns_stored_first_on_disk(tmp_path: Path) -> None:
    path = write(cells(sparse.csc_matrix), tmp_path / "cells.h5ad")
    spoil(path, "X/indices", entry(30))
    with pytest.raises(CellditError, match="position 30"):
        read_any(ad.read_h5ad(path, backed="r"), FIELDS)


def test_a_shard_among_others(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(cells(), tmp_path / f"{name}.h5ad")
    open_store(tmp_path, perturbation_key="perturbation")
    spoil(tmp_path / "b.h5ad", "X/indices", entry(31))
    with pytest.raises(InputError, match=r"b\.h5ad is damaged.*position 31"):
        open_store(tmp_path, perturbation_key="perturbation")


def test_what_changes_after_a_store_was_opened(tmp_path: Path) -> None:
    """A chunk of a zarr can be rewritten such that no time stamp of its folder tells."""
    path = write(cells(), tmp_path / "cells.zarr")
    store = open_store(path, perturbation_key="perturbation")
    spoil(path, "X/indices", entry(31))
    with pytest.raises(CellditError):
        store.take(slice(None))


def test_leaks_are_sought_in_whole_matrices() -> None:
    train, test = cells(), cells()
    test.obs_names = [f"t{i}" for i in range(30)]
    test.X = sparse.csr_matrix(test.X.toarray()[:, ::-1])
    CellDiT.setup_anndata(train, perturbation_key="perturbation")
    train.obsm["X_pca"] = np.random.default_rng(0).normal(size=(30, 3))
    test.layers["counts"].indices[7] = 31
    with pytest.raises(InputError, match="position 31"):
        check_no_leak(train, test)


def test_duplicates_and_empty_rows_stay_accepted(tmp_path: Path) -> None:
    """Odd, but right: entries out of order, or given twice."""
    adata = cells()
    data = np.array([1, 2, 3, 0, 5, 6], dtype=np.float32)
    indices = np.array([7, 2, 2, 0, 1, 3])
    adata = adata[:4].copy()
    adata.X = sparse.csr_matrix((data, indices, np.array([0, 3, 4, 5, 6])), shape=(4, 8))
    del adata.layers["counts"]
    adata.X.data[3] = 1
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    found = Cells.from_anndata(adata, FIELDS).counts
    assert found[0, 2] == 5
    path = write(adata, tmp_path / "odd.h5ad")
    assert (open_store(path).take(slice(None)).counts != found).nnz == 0
