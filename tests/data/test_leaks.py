"""Test cells among the training cells, or in what was fitted on them, are found on real screens."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

from celldit import datasets
from celldit.data import check_no_leak, setup_anndata, split
from celldit.errors import InputError

Sides = tuple[ad.AnnData, ad.AnnData]


@pytest.fixture(scope="module")
def halves():
    adata = datasets.norman()
    setup_anndata(adata, perturbation_key="perturbation", size_factor_key="total_umis")
    split(adata, "cells", fraction=0.3)
    return tuple(adata[adata.obs["split"] == side].copy() for side in ("train", "test"))


@pytest.mark.parametrize("name", ["papalexi", "norman", "kang"])
def test_honest_splits_pass(name):
    adata = datasets.load(name)
    key = "condition" if name == "kang" else "perturbation"
    setup_anndata(adata, perturbation_key=key, size_factor_key="total_umis")
    split(adata, "cells")
    check_no_leak(adata[adata.obs["split"] == "train"], adata[adata.obs["split"] == "test"])


def test_shared_names_are_found(halves):
    train, test = halves
    both = test.copy()
    both.obs_names = [train.obs_names[5], *both.obs_names[1:]]
    with pytest.raises(InputError, match=f"1 cells are in both.*{train.obs_names[5]}"):
        check_no_leak(train, both)


def test_copies_under_other_names_are_found_in_any_order_of_genes(halves):
    train, _ = halves
    perturbed = train[train.obs["perturbation"] != "control"][:7].copy()
    perturbed = perturbed[:, np.arange(perturbed.n_vars)[::-1]].copy()
    perturbed.obs_names = [f"renamed{i}" for i in range(7)]
    perturbed.X = perturbed.X.astype(float).tocsc()
    with pytest.raises(InputError, match=r"7 perturbed test cells.*'renamed0'"):
        check_no_leak(train, perturbed)


def test_controls_may_be_shared_under_other_names(halves):
    train, _ = halves
    controls = train[train.obs["perturbation"] == "control"].copy()
    controls.obs_names = [f"renamed{i}" for i in range(controls.n_obs)]
    check_no_leak(train, controls)


def test_same_counts_in_another_library_are_another_cell(halves):
    train, _ = halves
    perturbed = train[train.obs["perturbation"] != "control"][:7].copy()
    perturbed.obs_names = [f"renamed{i}" for i in range(7)]
    perturbed.obs["total_umis"] += 1
    check_no_leak(train, perturbed)


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    adata = datasets.norman()[::2].copy()
    setup_anndata(adata, perturbation_key="perturbation", size_factor_key="total_umis")
    split(adata, "combination", fraction=0.25)
    # Deeper cells, as of another run: equal medians of both sides would tell, and leak, nothing.
    adata.obs.loc[adata.obs["split"] == "test", "total_umis"] *= 2
    return adata


def sides(adata: ad.AnnData) -> Sides:
    held_out = (adata.obs["split"] == "test").to_numpy()
    assert 0.03 < held_out.mean() < 0.2
    return adata[~held_out].copy(), adata[held_out].copy()


def log(adata: ad.AnnData, target: float | None = 1e4) -> ad.AnnData:
    """The same with log expression in X and counts in a layer."""
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.astype(np.float32)
    sc.pp.normalize_total(adata, target_sum=target)
    sc.pp.log1p(adata)
    adata.uns["celldit"] = {
        "setup": {**adata.uns["celldit"]["setup"], "counts_layer": "counts"},
        **{k: v for k, v in adata.uns["celldit"].items() if k != "setup"},
    }
    return adata


def pca(adata: ad.AnnData) -> None:
    sc.pp.pca(log(adata), n_comps=20, random_state=0)


def pca_uncentered(adata: ad.AnnData) -> None:
    sc.pp.pca(log(adata), n_comps=20, zero_center=False, random_state=0)


def scaled_pca(adata: ad.AnnData) -> None:
    pca_of = log(adata)
    sc.pp.scale(pca_of, max_value=10)
    sc.pp.pca(pca_of, n_comps=20, random_state=0)


def genes_seurat(adata: ad.AnnData) -> None:
    sc.pp.highly_variable_genes(log(adata), n_top_genes=100, flavor="seurat")


def genes_to_the_median(adata: ad.AnnData) -> None:
    sc.pp.highly_variable_genes(log(adata, None), n_top_genes=100, flavor="seurat")


def genes_cell_ranger(adata: ad.AnnData) -> None:
    # Its bins fail on genes that are nearly always absent.
    adata._inplace_subset_var(np.asarray((adata.X > 0).mean(axis=0)).ravel() > 0.02)
    sc.pp.highly_variable_genes(log(adata), n_top_genes=100, flavor="cell_ranger")


def genes_pearson(adata: ad.AnnData) -> None:
    sc.experimental.pp.highly_variable_genes(adata, n_top_genes=100)


def factors_of_mean_one(adata: ad.AnnData) -> None:
    adata.obs["total_umis"] = adata.obs["total_umis"] / adata.obs["total_umis"].mean()


def factors_of_median_one(adata: ad.AnnData) -> None:
    adata.obs["total_umis"] = adata.obs["total_umis"] / adata.obs["total_umis"].median()


FITS = [
    pca,
    pca_uncentered,
    scaled_pca,
    genes_seurat,
    genes_to_the_median,
    genes_cell_ranger,
    genes_pearson,
    factors_of_mean_one,
    factors_of_median_one,
]


@pytest.mark.parametrize("fit", FITS)
def test_what_was_fitted_on_all_cells_is_refused(
    fit: Callable[[ad.AnnData], None], screen: ad.AnnData
) -> None:
    adata = screen.copy()
    fit(adata)
    where = {"p": "X_pca", "s": "X_pca", "g": "highly_variable", "f": "total_umis"}
    with pytest.raises(InputError, match=rf"{where[fit.__name__[0]]}.*training and test cells"):
        check_no_leak(*sides(adata))


@pytest.mark.parametrize("fit", FITS)
def test_what_was_fitted_on_training_cells_passes(
    fit: Callable[[ad.AnnData], None], screen: ad.AnnData
) -> None:
    train, test = sides(screen)
    fit(train)
    if "counts" in train.layers:
        log(test)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_no_leak(train, test)


@pytest.mark.parametrize("fit", [pca, genes_seurat])
def test_one_perturbation_of_thirty_is_enough(
    fit: Callable[[ad.AnnData], None], screen: ad.AnnData
) -> None:
    adata = screen[screen.obs["perturbation"] != "KLF1"].copy()
    few = (adata.obs["perturbation"] == "MAP2K6").to_numpy()
    fit(adata)
    with pytest.raises(InputError, match="training and test cells"):
        check_no_leak(adata[~few].copy(), adata[few].copy())


@pytest.mark.parametrize("fit", [pca, genes_seurat])
def test_cells_of_neither_side_are_warned_of(
    fit: Callable[[ad.AnnData], None], screen: ad.AnnData
) -> None:
    adata = screen.copy()
    fit(adata)
    train, test = sides(adata)
    with pytest.warns(UserWarning, match="make sure that no test cell was among them"):
        check_no_leak(train, test[: test.n_obs // 2].copy())


def test_genes_chosen_and_cut_out_are_found(screen: ad.AnnData) -> None:
    adata = screen.copy()
    genes_seurat(adata)
    adata = adata[:, adata.var["highly_variable"]].copy()
    with pytest.raises(InputError, match="highly variable genes were chosen"):
        check_no_leak(*sides(adata))


def test_files_are_looked_into(halves, tmp_path):
    train, test = (side.copy() for side in halves)
    both = ad.concat([train, test])
    for cells in (train, test, both):
        cells.layers["counts"] = cells.X.copy()
        sc.pp.normalize_total(cells, target_sum=1e4)
        sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(both, n_top_genes=50)
    train.var = both.var
    setup = {"perturbation_key": "perturbation", "counts_layer": "counts"}
    setup_anndata(train, size_factor_key="total_umis", **setup)
    train.write_h5ad(tmp_path / "train.h5ad")
    test.write_h5ad(tmp_path / "test.h5ad")
    backed = [ad.read_h5ad(tmp_path / f"{name}.h5ad", backed="r") for name in ("train", "test")]
    with pytest.raises(InputError, match="highly variable genes were chosen on training and test"):
        check_no_leak(*backed)
    with pytest.raises(InputError, match="Expected an AnnData as test"):
        check_no_leak(train, "test")
