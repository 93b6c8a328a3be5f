from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

import celldit as cd
from celldit.data import counts as module
from celldit.data.counts import check_counts, read_counts
from celldit.errors import InputError, UnknownNameError

DTYPES = [np.int8, np.int32, np.int64, np.uint16, np.uint64, np.float16, np.float32, np.float64]
FORMATS = {
    "dense": np.asarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
}
tables = hnp.arrays(
    np.int8, st.tuples(st.integers(1, 9), st.integers(1, 7)), elements=st.integers(0, 9)
)


@given(tables, st.sampled_from(list(FORMATS)), st.sampled_from(DTYPES), st.integers(1, 4))
def test_any_storage_gives_the_same_counts(table, kind, dtype, block_rows):
    if kind != "dense" and dtype == np.float16:
        dtype = np.float32  # scipy has no sparse float16
    adata = ad.AnnData(FORMATS[kind](table.astype(dtype)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", block_rows)
        read = read_counts(adata, None)
        totals = check_counts(adata, None)
    assert sparse.isspmatrix_csr(read)
    assert read.dtype == np.float32
    assert read.nnz == np.count_nonzero(table)
    np.testing.assert_array_equal(read.toarray(), table)
    np.testing.assert_array_equal(totals, table.sum(axis=1))


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_backed_files_are_read(kind, tmp_path):
    table = np.arange(20).reshape(5, 4)
    ad.AnnData(FORMATS[kind](table.astype(np.float32))).write_h5ad(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(
        read_counts(adata, None, np.array([3, 0])).toarray(), table[:, [3, 0]]
    )
    np.testing.assert_array_equal(check_counts(adata, None), table.sum(axis=1))
    part = adata[[4, 1]]
    np.testing.assert_array_equal(read_counts(part, None).toarray(), table[[4, 1]])
    adata.file.close()


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_the_result_shares_no_memory_with_the_anndata(kind):
    adata = ad.AnnData(FORMATS[kind](np.ones((3, 4), dtype=np.float32)))
    read = read_counts(adata, None)
    read.data[:] = 9
    read.indices[:] = 0
    assert (np.asarray(adata.X.sum(axis=1)) == 4).all()
    assert set(sparse.csr_matrix(adata.X).indices) == {0, 1, 2, 3}


def test_booleans_and_rounding_errors_count_as_counts():
    assert check_counts(ad.AnnData(np.array([[True, False], [True, True]])), None).tolist() == [
        1,
        2,
    ]
    read = read_counts(ad.AnnData(np.array([[2.9999999, 1e-9]])), None)
    assert read.toarray().tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinite values"),
        (np.inf, "NaN or infinite values"),
        (-1.0, "negative values .lowest -1."),
        (0.5, "not whole numbers .such as 0.5."),
    ],
)
def test_what_is_no_count_is_refused(kind, value, message):
    table = np.ones((4, 3))
    table[2, 1] = value
    for job in (read_counts, check_counts):
        with pytest.raises(InputError, match=message):
            job(ad.AnnData(FORMATS[kind](table)), None)


def normalised() -> ad.AnnData:
    return ad.AnnData(sparse.csr_matrix(np.log1p(np.arange(6.0).reshape(2, 3))))


def test_the_error_points_at_counts_elsewhere():
    raw = sparse.csr_matrix(np.arange(6.0).reshape(2, 3))
    adata = normalised()
    with pytest.raises(InputError, match="Store them in a layer"):
        check_counts(adata, None)
    adata.layers["scaled"] = np.full((2, 3), -0.5)
    adata.layers["umis"] = raw
    with pytest.raises(InputError, match="pass counts_layer='umis'"):
        check_counts(adata, None)

    adata = normalised()
    adata.raw = ad.AnnData(raw)
    with pytest.raises(InputError, match=r"adata\.raw\.to_adata\(\)"):
        check_counts(adata, None)

    adata = ad.AnnData(raw, layers={"lognorm": normalised().X})
    with pytest.raises(InputError, match="leave counts_layer out"):
        check_counts(adata, "lognorm")


def test_missing_matrices_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'counts'"):
        check_counts(ad.AnnData(np.ones((2, 2)), layers={"counts": np.ones((2, 2))}), "count")
    with pytest.raises(InputError, match=r"adata\.X is empty"):
        check_counts(ad.AnnData(shape=(2, 2)), None)
    with pytest.raises(InputError, match="no cells"):
        check_counts(ad.AnnData(np.ones((0, 2))), None)
    with pytest.raises(InputError, match="no genes"):
        check_counts(ad.AnnData(np.ones((2, 0))), None)


def test_no_dense_copy_is_made(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a sparse matrix was made dense")

    for kind in (sparse.csr_matrix, sparse.csc_matrix):
        for method in ("toarray", "todense"):
            monkeypatch.setattr(kind, method, refuse)
        adata = ad.AnnData(kind(np.eye(5)))
        check_counts(adata, None)
        read_counts(adata, None, np.array([1, 2]))


def screen(n_cells: int = 60, n_genes: int = 200, depth: float = 3000.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    rates = rng.dirichlet(np.full(n_genes, 0.5))
    sizes = rng.lognormal(np.log(depth), 0.3, n_cells)
    return rng.poisson(sizes[:, None] * rates).astype(np.float64) + (np.arange(n_genes) == 0)


def per(total: float) -> np.ndarray:
    counts = screen()
    return counts / counts.sum(axis=1, keepdims=True) * total


NO_COUNTS = {
    "rounded CPM": np.rint(per(1e6)),
    "rounded counts per 10,000": np.rint(per(1e4)),
    "CPM cut down": np.floor(per(1e6)),
    "hundred logarithms": np.rint(100 * np.log1p(per(1e4))),
    "a thousand times": 1000 * screen(),
    "some genes of rounded CPM": np.rint(per(1e6))[:, 50:],
    "rounded logarithms": np.rint(np.log1p(per(1e4))),
    "rounded logarithms of CPM": np.rint(np.log1p(per(1e6))),
    "rounded logarithms to base 2": np.rint(np.log2(1 + per(1e4))),
    "logarithms cut down": np.floor(np.log1p(per(1e4))),
}


@pytest.mark.parametrize("what", NO_COUNTS)
def test_whole_numbers_that_are_no_counts(what: str, tmp_path: Path) -> None:
    table = NO_COUNTS[what][:, : NO_COUNTS[what].shape[1]]
    for kind in FORMATS.values():
        adata = ad.AnnData(kind(table))
        for job in (read_counts, check_counts):
            with pytest.raises(InputError, match=r"whole numbers that are no counts: .* as in r"):
                job(adata, None)
    adata = ad.AnnData(sparse.csr_matrix(table), obs=pd.DataFrame(index=np.arange(60).astype(str)))
    adata.obs["p"] = ["control", "A"] * 30
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match="whole numbers that are no counts"):
        cd.open_store(tmp_path / "cells.h5ad", perturbation_key="p")


def thinned(total: int) -> np.ndarray:
    counts = screen().astype(np.int64)
    rng = np.random.default_rng(0)
    return np.array([rng.multivariate_hypergeometric(row, total) for row in counts])


COUNTS = {
    "counts": screen(),
    "deep": screen(depth=2e6),
    "shallow": screen(depth=40.0),
    "thinned to one total": thinned(500),
    "Poisson of one size": np.random.default_rng(0).poisson(np.full((60, 200), 5.0)),
    "a few genes, all high": np.random.default_rng(0).poisson(np.full((60, 5), 2000.0)),
    "all equal": np.full((60, 5), 3.0),
    "few cells": np.rint(per(1e6))[:8],
    "a panel": screen(n_genes=28, depth=60.0),
    "an even panel": np.random.default_rng(0).poisson(np.full((60, 28), 2.0)),
    "even and shallow": np.random.default_rng(0).poisson(np.full((60, 2000), 1.0)),
    "even, thinned": np.random.default_rng(0).multinomial(2000, np.full(2000, 1 / 2000), 60),
    "zero or one": np.random.default_rng(0).integers(0, 2, (60, 200)),
    "one gene": np.random.default_rng(0).poisson(4.0, (60, 1)) + 1,
}


@pytest.mark.parametrize("what", COUNTS)
def test_odd_counts_stay_accepted(what: str) -> None:
    for kind in FORMATS.values():
        check_counts(ad.AnnData(kind(COUNTS[what].astype(np.float32))), None)


@pytest.mark.parametrize(
    "name", ["baron", "kang", "norman", "papalexi", "reprogramming", "sciplex2"]
)
def test_measured_counts_however_shallow_stay_accepted(name: str) -> None:
    counts = cd.datasets.load(name).X.astype(np.int64)[:4096]
    rng, order = np.random.default_rng(0), np.argsort(-counts.sum(axis=0).A1)
    for share in (1.0, 0.3, 0.1, 0.03, 0.01):
        thin = counts.copy()
        thin.data = rng.binomial(thin.data, share)
        for genes in (order, order[:28], order[28:], order[len(order) // 2 :], order[:1]):
            for cells in (slice(None), slice(0, 25)):
                check_counts(ad.AnnData(thin[cells][:, genes].astype(np.float32)), None)


@pytest.mark.parametrize(
    "name", ["baron", "kang", "norman", "papalexi", "reprogramming", "sciplex2"]
)
def test_rounded_logarithms_of_measured_counts_are_refused(name: str) -> None:
    counts = cd.datasets.load(name).X.astype(np.float64)[:2000]
    totals = counts.sum(axis=1).A1
    # At 30 counts a cell, rounded logarithms of nearly the counts themselves are nearly those.
    for target in (1e4, 1e6) if name == "sciplex2" else (1e4, float(np.median(totals)), 1e6):
        for base in (np.e, 2.0):
            rates = sparse.diags(target / totals) @ counts
            rates.data = np.rint(np.log1p(rates.data) / np.log(base))
            with pytest.raises(InputError, match="whole numbers that are no counts"):
                check_counts(ad.AnnData(sparse.csr_matrix(rates.astype(np.float32))), None)


def test_counts_recovered_from_logarithms() -> None:
    """float32 loses some of each value on the way to log1p of counts per 10,000 and back."""
    counts = screen(depth=30_000.0)
    totals = counts.sum(axis=1, keepdims=True)
    logs = np.log1p(counts / totals * 1e4).astype(np.float32)
    back = (np.expm1(logs) / 1e4 * totals).astype(np.float32)
    assert 1e-4 < np.abs(back - counts).max() < 0.05
    found = read_counts(ad.AnnData(sparse.csr_matrix(back)), None)
    assert (found.toarray() == counts).all()


def test_corrected_counts_are_told_how_to_be_rounded() -> None:
    counts = screen() * np.random.default_rng(1).uniform(0.9, 1.0, (60, 200))
    for kind in FORMATS.values():
        adata = ad.AnnData(kind(counts), obs=pd.DataFrame(index=np.arange(60).astype(str)))
        with pytest.raises(InputError, match="corrected for background") as caught:
            cd.CellDiT.setup_anndata(adata)
        told = str(caught.value).split("round them first: ")[1].split(", and pass ")[0]
        exec(told, {"adata": adata, "scipy": __import__("scipy.sparse")})
        cd.CellDiT.setup_anndata(adata, counts_layer="rounded")
    with pytest.raises(InputError, match="not whole numbers") as caught:
        check_counts(normalised(), None)
    assert "corrected" not in str(caught.value)


def test_half_precision_makes_no_warnings() -> None:
    table = np.minimum(screen(), 2000).astype(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata = ad.AnnData(table)
        assert (read_counts(adata, None).toarray() == table).all()
        assert (check_counts(adata, None) == table.astype(np.float64).sum(axis=1)).all()
