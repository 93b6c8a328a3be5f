"""Counterfactuals written into the AnnData."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import celldit as cd
from celldit.errors import InputError, NotTrainedError, UnknownNameError


def controls_of(adata: ad.AnnData) -> np.ndarray:
    return (adata.obs["perturbation"] == "control").to_numpy()


@pytest.fixture
def written(tiny_screen: ad.AnnData, tiny_model: Any) -> ad.AnnData:
    cd.tl.counterfactual(tiny_screen, tiny_model, "A")
    return tiny_screen


def test_control_rows_hold_the_prediction(written: ad.AnnData, tiny_model: Any) -> None:
    predicted = tiny_model.predict(written[controls_of(written)], perturbations="A")
    for name in ("mean", "counts"):
        layer = written.layers[f"celldit_{name}"][controls_of(written)]
        np.testing.assert_array_equal(layer.toarray(), predicted.layers[name].toarray())
    latent = written.obsm["X_celldit"][controls_of(written)]
    np.testing.assert_array_equal(latent, predicted.obsm["X_celldit"])
    assert written.layers["celldit_counts"].dtype == np.int32
    assert not np.array_equal(layer.toarray(), written.X[controls_of(written)].toarray())


def test_other_rows_hold_what_was_observed(written: ad.AnnData, tiny_model: Any) -> None:
    others = ~controls_of(written)
    for name in ("mean", "counts"):
        layer = written.layers[f"celldit_{name}"]
        np.testing.assert_array_equal(layer[others].toarray(), written.X[others].toarray())
    latent = tiny_model.get_latent_representation(written)
    np.testing.assert_allclose(written.obsm["X_celldit"][others], latent[others], atol=1e-5)
    np.testing.assert_array_equal(written.obs["celldit_predicted"], ~others)


def test_setup_survives_and_the_result_says_what_made_it(written: ad.AnnData) -> None:
    assert written.uns["celldit"]["setup"]["perturbation_key"] == "perturbation"
    made_by = written.uns["celldit"]["counterfactual"]
    assert made_by["perturbation"] == "A"
    assert made_by["n_predicted"] == controls_of(written).sum()


@pytest.mark.parametrize("sampler", ["inversion", "edit"])
def test_any_sampler_of_the_model(tiny_screen: ad.AnnData, tiny_model: Any, sampler: Any) -> None:
    cd.tl.counterfactual(tiny_screen, tiny_model, "A", sampler=sampler, n_steps=2)
    assert tiny_screen.uns["celldit"]["counterfactual"]["sampler"] == sampler


def test_copy_leaves_the_input_alone(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    result = cd.tl.counterfactual(tiny_screen, tiny_model, "A", key_added="a", copy=True)
    assert result is not None
    assert "a_mean" in result.layers
    assert not tiny_screen.layers.keys()
    assert not tiny_screen.obsm.keys()


def test_gene_order_and_further_genes_do_not_matter(
    tiny_screen: ad.AnnData, tiny_model: Any, written: ad.AnnData
) -> None:
    extra = ad.AnnData(
        sparse.csr_matrix(np.full((tiny_screen.n_obs, 1), 3, dtype=np.int32)),
        obs=tiny_screen.obs[[]],
        var=pd.DataFrame(index=["OTHER"]),
    )
    wide = sc.concat([tiny_screen, extra], axis=1, merge="same")
    wide.obs = tiny_screen.obs[["perturbation", "donor"]].copy()
    wide = wide[:, wide.var_names[::-1]].copy()
    # Without a size factor the further gene would change the library size.
    wide.layers["counts"] = wide.X.copy()
    with pytest.warns(UserWarning, match="does not know 1 genes"):
        cd.tl.counterfactual(wide, tiny_model, "A")
    genes = list(tiny_screen.var_names)
    np.testing.assert_array_equal(
        wide[:, genes].layers["celldit_mean"].toarray(), written.layers["celldit_mean"].toarray()
    )
    assert (wide[:, "OTHER"].layers["celldit_mean"].toarray() == 3).all()


def test_fails_before_anything_is_written(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    perturbed = tiny_screen[~controls_of(tiny_screen)].copy()
    with pytest.raises(InputError, match="start from control"):
        cd.tl.counterfactual(perturbed, tiny_model, "A")
    with pytest.raises(UnknownNameError, match="'Z'"):
        cd.tl.counterfactual(tiny_screen, tiny_model, "Z")
    with pytest.raises(InputError, match="one perturbation"):
        cd.tl.counterfactual(tiny_screen, tiny_model, ["A", "B"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="AnnData comes first"):
        cd.tl.counterfactual(tiny_model, tiny_screen, "A")
    with pytest.raises(NotTrainedError):
        cd.tl.counterfactual(tiny_screen, cd.CellDiT(tiny_screen, "modules"), "A")
    assert not tiny_screen.layers.keys()


def test_result_survives_a_file(written: ad.AnnData, tmp_path: Any) -> None:
    written.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(
        read.layers["celldit_counts"].toarray(), written.layers["celldit_counts"].toarray()
    )
    assert read.uns["celldit"]["counterfactual"]["perturbation"] == "A"


def test_a_backed_file_is_read_but_not_written(
    tiny_screen: ad.AnnData, tiny_model: Any, written: ad.AnnData, tmp_path: Any
) -> None:
    clean = ad.AnnData(tiny_screen.X, obs=tiny_screen.obs, var=tiny_screen.var)
    clean.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(InputError, match="copy=True"):
        cd.tl.counterfactual(backed, tiny_model, "A")
    result = cd.tl.counterfactual(backed, tiny_model, "A", copy=True)
    assert result is not None
    np.testing.assert_array_equal(
        result.layers["celldit_counts"].toarray(), written.layers["celldit_counts"].toarray()
    )


def measured_and_predicted(tiny_screen: ad.AnnData, tiny_model: Any) -> ad.AnnData:
    predicted = tiny_model.predict(tiny_screen, perturbations=["A", "A+B"])
    cd.tl.embed(tiny_screen, tiny_model)
    sc.pp.normalize_total(tiny_screen, target_sum=1e4)
    sc.pp.log1p(tiny_screen)
    return sc.concat({"measured": tiny_screen, "predicted": predicted}, label="origin")


def test_predictions_go_straight_through_scanpy(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    both = measured_and_predicted(tiny_screen, tiny_model)
    assert both.n_obs == 480 + 2 * controls_of(tiny_screen).sum()
    assert both.obsm["X_celldit"].shape == (both.n_obs, 6)
    sc.tl.rank_genes_groups(both, "perturbation", method="t-test", reference="control")
    assert set(both.uns["rank_genes_groups"]["names"]["A"]) == set(both.var_names)
    # Both sides are log(1 + counts per 10,000), so libraries are as deep.
    depth = np.expm1(both.X.toarray()).sum(axis=1)
    predicted = both.obs["origin"].to_numpy() == "predicted"
    assert depth[predicted].mean() == pytest.approx(1e4, rel=0.3)


@pytest.mark.slow
def test_predictions_go_through_neighbors_and_umap(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    both = measured_and_predicted(tiny_screen, tiny_model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(both, use_rep="X_celldit", n_neighbors=8)
        sc.tl.umap(both, maxiter=10)
    assert np.isfinite(both.obsm["X_umap"]).all()


def test_names_that_repeat_among_genes_of_no_model(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    counts = sparse.hstack([tiny_screen.X, tiny_screen.X[:, :2]], format="csr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wider = ad.AnnData(counts, tiny_screen.obs, uns=tiny_screen.uns)
        wider.var_names = [*tiny_screen.var_names, "twice", "twice"]
        cd.tl.counterfactual(wider, tiny_model, "A")
        cd.tl.counterfactual(tiny_screen, tiny_model, "A")
    found, expected = wider.layers["celldit_mean"], tiny_screen.layers["celldit_mean"]
    np.testing.assert_array_equal(found[:, :-2].toarray(), expected.toarray())
    np.testing.assert_array_equal(found[:, -2:].toarray(), counts[:, -2:].toarray())
