from __future__ import annotations

import dataclasses

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from celldit import datasets
from celldit.data import Cells, Fields, setup_anndata
from celldit.errors import InputError

FIELDS = Fields(
    perturbation_key="perturbation",
    covariate_keys=("donor", "batch"),
    size_factor_key="umis",
    time_key="day",
)


def test_cells_hold_what_the_columns_say(make_screen):
    adata = make_screen(labels=("control", "A", "B + A", "A+control"))
    cells = Cells.from_anndata(adata, FIELDS)
    assert (cells.n_cells, cells.n_genes) == adata.shape
    assert list(cells.perturbations[:4]) == ["control", "A", "A+B", "A"]
    np.testing.assert_array_equal(cells.is_control, np.arange(60) % 4 == 0)
    assert cells.contexts[:5].tolist() == ["d0 | 0", "d0 | 1", "d0 | 0", "d0 | 1", "d1 | 0"]
    assert list(cells.covariates) == ["donor", "batch"]
    assert set(cells.covariates["batch"]) == {"0", "1"}
    np.testing.assert_array_equal(cells.times[:2], [2.0, 1.5])
    np.testing.assert_allclose(cells.size_factors, adata.obs["umis"], rtol=1e-6)
    assert cells.size_factors.dtype == np.float32
    np.testing.assert_array_equal(cells.counts.toarray(), adata.X.toarray())
    assert cells.genes == tuple(adata.var_names)
    assert list(cells.names) == list(adata.obs_names)
    assert cells.doses is None


def test_without_keys_every_cell_is_a_control_in_one_context(make_screen):
    cells = Cells.from_anndata(make_screen(), Fields(control="ctrl"))
    assert cells.is_control.all()
    assert set(cells.perturbations) == {"ctrl"}
    assert set(cells.contexts) == {""}
    assert cells.covariates.shape == (60, 0)
    np.testing.assert_array_equal(cells.size_factors, cells.counts.sum(axis=1).A1)


@given(st.permutations(range(12)), st.integers(1, 12))
def test_genes_are_matched_by_name(make_screen, order, n_genes):
    adata = make_screen()
    wanted = adata.var_names[order[:n_genes]]
    cells = Cells.from_anndata(adata, FIELDS, genes=list(wanted))
    assert cells.genes == tuple(wanted)
    np.testing.assert_array_equal(cells.counts.toarray(), adata[:, wanted].X.toarray())


def test_totals_are_over_the_genes_asked_for(make_screen):
    adata = make_screen()
    cells = Cells.from_anndata(adata, Fields(), genes=["gene0", "gene1"])
    np.testing.assert_array_equal(cells.size_factors, adata.X[:, :2].sum(axis=1).A1)


def test_missing_genes_are_counted_and_named(make_screen):
    with pytest.raises(InputError, match=r"4 of the 5 genes.*'x0', 'x1', 'x2' and 1.*'gene0'"):
        Cells.from_anndata(make_screen(), FIELDS, genes=["gene1", "x0", "x1", "x2", "x3"])


def test_doubled_genes_matter_only_when_asked_for(make_screen):
    adata = make_screen()
    adata.var_names = ["twice", "twice", *adata.var_names[2:]]
    assert Cells.from_anndata(adata, FIELDS, genes=["gene5", "gene2"]).genes == ("gene5", "gene2")
    with pytest.raises(InputError, match=r"'twice'.*var_names_make_unique"):
        Cells.from_anndata(adata, FIELDS, genes=["twice"])


def test_empty_cells_need_a_given_size_factor(make_screen):
    adata = make_screen()
    adata.X = sparse.csr_matrix(adata.shape, dtype=np.int32)
    assert Cells.from_anndata(adata, FIELDS).log_normalized().nnz == 0
    with pytest.raises(InputError, match="60 cells have no counts"):
        Cells.from_anndata(adata, Fields())


@given(st.lists(st.integers(-60, 59), max_size=20))
def test_taking_cells_takes_every_column(make_screen, index):
    cells = Cells.from_anndata(make_screen(), FIELDS)
    mask = np.zeros(60, dtype=bool)
    mask[index] = True
    for chosen, rows in ((index, index), (mask, np.flatnonzero(mask)), (slice(3, 9), range(3, 9))):
        rows = np.asarray(list(rows), dtype=int)
        taken = cells.take(np.asarray(chosen, dtype=int) if isinstance(chosen, list) else chosen)
        assert taken.n_cells == len(rows)
        assert taken.genes == cells.genes
        for name in ("size_factors", "perturbations", "names", "times", "contexts", "is_control"):
            np.testing.assert_array_equal(getattr(taken, name), getattr(cells, name)[rows])
        np.testing.assert_array_equal(taken.counts.toarray(), cells.counts.toarray()[rows])
        np.testing.assert_array_equal(taken.covariates, cells.covariates.iloc[rows])


def test_log_expression_equals_scanpys():
    adata = datasets.kang()[:300].copy()
    cells = Cells.from_anndata(adata, Fields())
    adata.X = adata.X.astype(np.float32)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    ours = cells.log_normalized()
    assert sparse.isspmatrix_csr(ours)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours.toarray(), adata.X.toarray(), rtol=1e-5)


def test_doses_follow_their_perturbations():
    adata = ad.AnnData(np.ones((4, 2), dtype=int))
    adata.obs["p"] = ["B+A", "A+control", "control", "B"]
    adata.obs["d"] = ["1+0.5", "2+0", None, "3"]
    fields = setup_anndata(adata, perturbation_key="p", dose_key="d")
    assert Cells.from_anndata(adata, fields).doses.tolist() == ["0.5+1", "2", "0", "3"]
    sciplex = datasets.sciplex2()
    fields = setup_anndata(sciplex, perturbation_key="perturbation", dose_key="dose_um")
    doses = Cells.from_anndata(sciplex, fields).doses
    np.testing.assert_array_equal(doses, sciplex.obs["dose_um"])


def test_times_may_be_categories_of_numbers():
    adata = datasets.reprogramming()
    adata.obs["day"] = pd.Categorical(adata.obs["day"].astype(str))
    cells = Cells.from_anndata(adata, Fields(time_key="day"))
    assert cells.times.dtype == np.float64
    assert set(cells.times) == {10.0, 10.5, 11.0}


def test_cells_without_a_control_and_without_setup_are_read(make_screen):
    adata = make_screen()
    cells = Cells.from_anndata(adata[adata.obs["perturbation"] == "A"], FIELDS)
    assert not cells.is_control.any()
    assert cells.n_cells == 15


def test_lengths_must_agree(make_screen):
    cells = Cells.from_anndata(make_screen(), FIELDS)
    with pytest.raises(InputError, match="11 gene names for 12"):
        dataclasses.replace(cells, genes=cells.genes[:11])
    with pytest.raises(InputError, match="times has 3 entries for 60"):
        dataclasses.replace(cells, times=np.ones(3))


@pytest.mark.parametrize("name", ["papalexi", "norman"])
def test_real_screens_keep_their_labels(name):
    adata = datasets.load(name)
    fields = setup_anndata(
        adata, perturbation_key="perturbation", size_factor_key="total_umis", control="control"
    )
    cells = Cells.from_anndata(adata, fields)
    assert cells.is_control.sum() == (adata.obs["perturbation"] == "control").sum()
    assert len(set(cells.perturbations)) == adata.obs["perturbation"].nunique()
