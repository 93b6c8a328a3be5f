"""What celldit writes goes straight on in scanpy."""

from __future__ import annotations

from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
import scanpy as sc

import celldit as cd

mpl.use("Agg")

import matplotlib.pyplot as plt


@pytest.fixture
def predicted(tiny_screen: ad.AnnData, tiny_model: Any) -> ad.AnnData:
    """Predicted cells of A and B, and the controls as the model returns them."""
    return tiny_model.predict(tiny_screen, perturbations=["control", "A", "B"])


def test_rank_genes_groups_finds_what_the_model_says(
    predicted: ad.AnnData, tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    sc.tl.rank_genes_groups(
        predicted, "perturbation", groups=["A"], reference="control", method="t-test"
    )
    ranked = sc.get.rank_genes_groups_df(predicted, "A").set_index("names")
    effects = cd.tl.effects(tiny_screen, tiny_model, "A")
    expected = effects.groupby("gene")["log_fold_change"].mean()
    found = ranked["logfoldchanges"].loc[expected.index]
    assert np.corrcoef(expected, found)[0, 1] > 0.8


def test_neighbors_umap_plots(predicted: ad.AnnData, tiny_screen: ad.AnnData) -> None:
    sc.pp.neighbors(predicted, use_rep="X_celldit", n_neighbors=10)
    sc.tl.umap(predicted, random_state=0, maxiter=5)
    assert predicted.obsm["X_umap"].shape == (predicted.n_obs, 2)
    ax = sc.pl.umap(predicted, color=["perturbation"], show=False)
    assert ax is not None
    gene = predicted.var_names[0]
    assert sc.pl.violin(predicted, gene, groupby="perturbation", show=False) is not None
    assert sc.pl.dotplot(predicted, [gene], groupby="perturbation", show=False) is not None
    plt.close("all")


def test_measured_and_predicted_cells_join(
    predicted: ad.AnnData, tiny_screen: ad.AnnData, tiny_model: Any, tmp_path: Any
) -> None:
    cd.tl.embed(tiny_screen, tiny_model)
    joint = ad.concat([tiny_screen, predicted], label="source", index_unique="-")
    assert {"perturbation", "donor"} <= set(joint.obs.columns)
    sc.pp.neighbors(joint, use_rep="X_celldit", n_neighbors=10)
    joint.write_h5ad(tmp_path / "joint.h5ad")
    again = ad.read_h5ad(tmp_path / "joint.h5ad")
    np.testing.assert_array_equal(again.obsm["X_celldit"], joint.obsm["X_celldit"])


def test_generated_cells_cluster_in_scanpy(tiny_model: Any) -> None:
    cells = tiny_model.generate(60)
    cells.X = cells.layers["counts"].astype(np.float32)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=20)
    sc.pp.pca(cells, n_comps=5)
    assert cells.obsm["X_pca"].shape == (60, 5)


def test_names_of_the_public_interface() -> None:
    wanted = {
        cd.tl: "counterfactual embed token_activity attention effects evaluate rank_perturbations",
        cd.pp: "gene_features drug_features split",
        cd.pl: "training_curves effect effect_heatmap embedding distributions attention "
        "attention_network dose_response trajectory calibration scores",
    }
    for space, names in wanted.items():
        assert set(names.split()) <= set(space.__all__)
