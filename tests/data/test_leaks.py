from __future__ import annotations

import numpy as np
import pytest

from celldit import datasets
from celldit.data import check_no_leak, setup_anndata, split
from celldit.errors import InputError


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
