"""Embeddings, effects, rankings, token activity and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.errors import InputError, UnknownNameError
from celldit.nn.comparators import MLPConfig


def test_embed_gives_the_latent_of_measured_and_predicted_cells(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    cd.tl.embed(tiny_screen, tiny_model)
    expected = tiny_model.get_latent_representation(tiny_screen)
    np.testing.assert_array_equal(tiny_screen.obsm["X_celldit"], expected)
    predicted = tiny_model.predict(tiny_screen, perturbations="A")
    copy = cd.tl.embed(predicted, tiny_model, key_added="X_again", copy=True)
    assert copy is not None
    assert copy.obsm["X_again"].shape == predicted.obsm["X_celldit"].shape
    assert "X_again" not in predicted.obsm


def test_effects_are_those_of_the_model_in_the_contexts_at_hand(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    some = tiny_screen[tiny_screen.obs["donor"].isin(["d1", "d2"])].copy()
    table = cd.tl.effects(some, tiny_model, ["A", "A+B"])
    assert set(table["context"]) == {"d1", "d2"}
    assert len(table) == 2 * 2 * some.n_vars
    full = tiny_model.predict_effects(["A", "A+B"])
    full = full[full["context"] != "d3"]
    np.testing.assert_allclose(table["log_fold_change"], full["log_fold_change"])
    assert some.uns["celldit_effects"] is table


def test_effects_survive_a_file(tiny_screen: ad.AnnData, tiny_model: Any, tmp_path: Any) -> None:
    table = cd.tl.effects(tiny_screen, tiny_model, "A")
    tiny_screen.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad").uns["celldit_effects"]
    assert list(read["gene"]) == list(table["gene"])


def test_effects_say_how_probable_each_change_is(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    table = cd.tl.effects(tiny_screen, tiny_model, min_change=0.5)
    assert set(table["perturbation"]) == {"A", "B", "C", "A+B"}
    np.testing.assert_allclose(table["log2_fold_change"] * np.log(2), table["log_fold_change"])
    np.testing.assert_allclose(table["z"], table["log_fold_change"] / table["sd"])
    for name in ("p_sign", "lfsr", "p_changed"):
        assert table[name].between(0, 1).all()
    assert (table["p_sign"] >= 0.5).all()
    assert (table["lfsr"] >= 1 - table["p_sign"] - 1e-12).all()
    assert (table["low"] < table["high"]).all()
    smaller = cd.tl.effects(tiny_screen, tiny_model, min_change=0.1)["p_changed"]
    assert (smaller >= table["p_changed"]).all()
    own = tiny_screen[(tiny_screen.obs["donor"] == "d1").to_numpy()]
    controls = own[(own.obs["perturbation"] == "control").to_numpy()]
    rates = controls.X.toarray() / controls.X.sum(1) * 1e4
    base = table.query("perturbation == 'A' and context == 'd1'")["base_mean"]
    np.testing.assert_allclose(base, np.asarray(rates.mean(0)).ravel(), rtol=0.1, atol=0.5)


def test_effects_of_a_control_are_nothing(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    table = cd.tl.effects(tiny_screen, tiny_model, "control")
    assert (table[["log_fold_change", "sd", "z", "p_changed"]] == 0).all(axis=None)
    assert (table["lfsr"] == 1).all()


def test_effects_in_a_context_never_seen_start_at_its_own_controls(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., Any]
) -> None:
    known = tiny_screen[(tiny_screen.obs["donor"] != "d3").to_numpy()].copy()
    model = train_tiny(known, max_epochs=0)
    table = cd.tl.effects(tiny_screen, model, "A")
    new = table[table["context"] == "d3"]
    assert set(new["extrapolation"]) == {"new context"}
    assert set(table["context"]) == {"d1", "d2", "d3"}
    own = tiny_screen.obs["donor"] == "d3"
    controls = tiny_screen[(own & (tiny_screen.obs["perturbation"] == "control")).to_numpy()]
    rates = np.asarray((controls.X.toarray() / controls.X.sum(1) * 1e4).mean(0)).ravel()
    np.testing.assert_allclose(new["base_mean"], rates, rtol=1e-4)
    only = cd.tl.effects(tiny_screen, model, "A", contexts="d3")
    np.testing.assert_allclose(only["lfsr"], new["lfsr"], rtol=1e-12)
    with pytest.raises(UnknownNameError, match="d9"):
        cd.tl.effects(tiny_screen, model, "A", contexts="d9")
    perturbed = tiny_screen[~(own & (tiny_screen.obs["perturbation"] == "control")).to_numpy()]
    with pytest.raises(InputError, match=r"'d3'.*add its control cells"):
        cd.tl.effects(perturbed.copy(), model, "A", contexts=["d3"])


def test_effects_of_unknown_contexts_are_refused(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    perturbed = tiny_screen[(tiny_screen.obs["perturbation"] != "control").to_numpy()].copy()
    perturbed.obs["donor"] = "d9"
    with pytest.raises(InputError, match="d9"):
        cd.tl.effects(perturbed, tiny_model, "A")
    assert "celldit_effects" not in perturbed.uns


def test_ranked_genes_have_a_row_for_each_condition(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    table = cd.tl.effects(tiny_screen, tiny_model, ["A", "B"])
    ranked = cd.tl.ranked_genes(table)
    assert ranked.shape == (6, tiny_screen.n_vars)
    assert not ranked.isna().any(axis=None)
    own = table.query("perturbation == 'B' and context == 'd2'").set_index("gene")
    np.testing.assert_array_equal(ranked.loc["B | d2", own.index], own["z"])
    one = cd.tl.ranked_genes(table[table["context"] == "d1"], by="confidence")
    assert list(one.index) == ["A", "B"]
    assert one.abs().max(axis=None) <= 1
    with pytest.raises(InputError, match="'z'"):
        cd.tl.ranked_genes(table, by="p")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no probabilities"):
        cd.tl.ranked_genes(tiny_model.predict_effects("A"))


@pytest.fixture
def strong_screen(simulate_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Three perturbations in enough cells that their effects can be told apart."""
    adata = simulate_screen(n_cells=900, labels=("control", "A", "B", "C"), donors=("d1",))
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control")
    return adata


def test_ranking_finds_the_perturbation_that_made_the_target(
    strong_screen: ad.AnnData, train_tiny: Callable[..., Any]
) -> None:
    # At its linear start the model predicts the measured mean shifts, so the answer is known.
    model = train_tiny(strong_screen, max_epochs=0)
    control = "perturbation == 'control'"
    for name in ("A", "B", "C"):
        target = (strong_screen.obs["perturbation"] == name).to_numpy()
        table = cd.tl.rank_perturbations(strong_screen, model, source=control, target=target)
        assert table["perturbation"].iloc[0] == name
        assert table["score"].is_monotonic_decreasing
        assert (table["sd"] > 0).all()
        assert table["p_closer"].between(0, 1).all()
        assert table["score"].iloc[0] <= 1
    assert strong_screen.uns["rank_perturbations"] is table


def test_ranking_identities(strong_screen: ad.AnnData, train_tiny: Callable[..., Any]) -> None:
    model = train_tiny(strong_screen, max_epochs=0)
    table = cd.tl.rank_perturbations(
        strong_screen,
        model,
        source="perturbation == 'control'",
        target="perturbation == 'B'",
        perturbations=["A", "A+B", "control"],
        max_cells=50,
    ).set_index("perturbation")
    # Of e.d / d.d = p and cos(e, d) = c the score 1 - |d - e|^2 / |d|^2 is 2 p - p^2 / c^2.
    moved = table.drop(index="control")
    expected = 2 * moved["progress"] - (moved["progress"] / moved["alignment"]) ** 2
    np.testing.assert_allclose(moved["score"], expected, rtol=1e-5)
    assert table.loc["control", "score"] == pytest.approx(0, abs=1e-6)


def test_selections_that_cannot_be_used_are_refused(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    def rank(source: Any, target: Any, **options: Any) -> None:
        cd.tl.rank_perturbations(tiny_screen, tiny_model, source=source, target=target, **options)

    with pytest.raises(InputError, match="not a query"):
        rank("nonsense ==", "donor == 'd1'")
    with pytest.raises(InputError, match="selects no cell"):
        rank("donor == 'd9'", "donor == 'd1'")
    with pytest.raises(InputError, match="480"):
        rank(np.ones(3, dtype=bool), "donor == 'd1'")
    with pytest.raises(InputError, match="start from control"):
        rank("perturbation == 'A'", "donor == 'd1'")
    with pytest.raises(UnknownNameError, match="'Z'"):
        rank("donor == 'd1'", "donor == 'd2'", perturbations=["Z"])
    with pytest.raises(InputError, match="max_cells=0 must be a whole number of at least 1"):
        rank("donor == 'd1'", "donor == 'd2'", max_cells=0)
    assert "rank_perturbations" not in tiny_screen.uns


def test_token_activity_is_the_first_eigengene(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    cd.tl.token_activity(tiny_screen, tiny_model)
    activity = tiny_screen.obsm["token_activity"]
    names = tiny_screen.uns["token_activity"]["names"]
    tokenizer = tiny_model.trained.autoencoder.tokenizer
    assert activity.shape == (tiny_screen.n_obs, len(names)) == (480, tokenizer.n_identities)
    # The training cells are its own, so each eigengene is centred on them.
    np.testing.assert_allclose(activity.mean(0), 0, atol=1e-3)
    assert (activity.std(0) > 0).all()


def test_attention_is_that_of_the_network(tiny_screen: ad.AnnData, flowing_model: Any) -> None:
    table = cd.tl.attention(tiny_screen, flowing_model, ["A", "control"], max_cells=15)
    sums = table.groupby(["perturbation", "context", "reader"])["attention"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    n_tokens = flowing_model.trained.flow.views.n_tokens
    assert len(sums) == 2 * 3 * n_tokens
    assert (table.loc[table["perturbation"] == "control", "difference"] == 0).all()
    assert (table.loc[table["perturbation"] == "A", "difference"].abs() > 0).any()
    names = set(flowing_model.trained.autoencoder.tokenizer.token_names)
    assert set(table["token"]) == set(table["reader"]) <= names


@pytest.mark.parametrize("tool", [cd.tl.attention, cd.tl.programs])
def test_what_the_network_says_needs_a_network_over_tokens(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., Any], tiny_model: Any, tool: Any
) -> None:
    other = train_tiny(tiny_screen, dit=MLPConfig(width=16, depth=1), max_epochs=0)
    with pytest.raises(InputError, match="does not attend to gene sets"):
        tool(tiny_screen, other, "A")
    with pytest.raises(InputError, match="max_cells=0 must be a whole number of at least 1"):
        tool(tiny_screen, tiny_model, "A", max_cells=0)
    with pytest.raises(UnknownNameError, match="Q"):
        tool(tiny_screen, tiny_model, "Q")


def test_programs_sum_to_the_predicted_shift(tiny_screen: ad.AnnData, flowing_model: Any) -> None:
    """In the latent and in genes, to 1e-5, and it is the shift of the cells that are predicted."""
    model = flowing_model.weighted(0.7)
    table = cd.tl.programs(tiny_screen, model, ["A", "B+C"])
    np.testing.assert_allclose(table.groupby(["perturbation", "context"])["share"].sum(), 1)
    np.testing.assert_allclose(table["share"], table["effect_model"] + table["network"])
    assert (table["network"] != 0).any()
    written = tiny_screen.uns["celldit_programs"]
    assert written["table"] is table
    before = model.predict(tiny_screen, perturbations=["control"])
    after = model.predict(tiny_screen, perturbations=["A", "B+C"])
    loadings_FG = model.trained.autoencoder.gene_loadings().T.to_numpy()
    for key, latent_RF, genes_RG in zip(
        written["asked"], written["latent"], written["genes"], strict=True
    ):
        label, donor = key.split("|")
        own = (after.obs["perturbation"] == label) & (after.obs["donor"] == donor)
        start = before.obsm["X_celldit"][(before.obs["donor"] == donor).to_numpy()]
        shift_F = after.obsm["X_celldit"][own.to_numpy()].mean(0) - start.mean(0)
        np.testing.assert_allclose(latent_RF.sum(0), shift_F, atol=1e-4)
        np.testing.assert_allclose(genes_RG.sum(0), shift_F @ loadings_FG, atol=1e-3)


def test_programs_by_group_average_to_the_whole(
    tiny_screen: ad.AnnData, flowing_model: Any
) -> None:
    rng = np.random.default_rng(0)
    tiny_screen.obs["kind"] = rng.choice(["x", "y"], tiny_screen.n_obs)
    cd.tl.programs(tiny_screen, flowing_model, "A", key_added="whole")
    table = cd.tl.programs(tiny_screen, flowing_model, "A", groupby="kind", key_added="parts")
    assert set(table["kind"]) == {"x", "y"}
    controls = tiny_screen.obs[tiny_screen.obs["perturbation"] == "control"]
    whole, parts = tiny_screen.uns["whole"], tiny_screen.uns["parts"]
    for key, latent_RF in zip(whole["asked"], whole["latent"], strict=True):
        label, donor = key.split("|")
        share = controls.loc[controls["donor"] == donor, "kind"].value_counts(normalize=True)
        each = dict(zip(parts["asked"], parts["latent"], strict=True))
        mean = sum(share[kind] * each[f"{label}|{donor}|{kind}"] for kind in "xy")
        np.testing.assert_allclose(latent_RF, mean, atol=1e-4)
    with pytest.raises(UnknownNameError, match="type"):
        cd.tl.programs(tiny_screen, flowing_model, "A", groupby="type")


def test_without_perturbations_none_is_ranked(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., Any]
) -> None:
    controls = tiny_screen[tiny_screen.obs["perturbation"] == "control"].copy()
    model = train_tiny(controls)
    with pytest.raises(InputError, match="trained without perturbations; give perturbations="):
        cd.tl.rank_perturbations(controls, model, source="donor == 'd1'", target="donor == 'd2'")


def test_token_activity_needs_sets(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., Any]
) -> None:
    adata = simulate_screen(n_cells=60)
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    model = train_tiny(adata, tokenizer="ranks", max_epochs=0)
    with pytest.raises(InputError, match="single genes"):
        cd.tl.token_activity(adata, model)
    table = cd.tl.attention(adata, model, "A")
    np.testing.assert_allclose(table.groupby("reader")["attention"].sum(), 1, atol=1e-5)
    assert set(table["token"]) <= set(model.genes)


def test_programs_of_groups_whose_cells_share_a_name(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    tiny_screen.obs["group"] = np.where(np.arange(tiny_screen.n_obs) % 3 == 0, "x", "y")
    expected = cd.tl.programs(tiny_screen, tiny_model, "A", groupby="group", max_cells=20)
    tiny_screen.obs_names = ["same"] * tiny_screen.n_obs
    found = cd.tl.programs(tiny_screen, tiny_model, "A", groupby="group", max_cells=20)
    pd.testing.assert_frame_equal(found, expected)


def test_groups_that_two_columns_name(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    tiny_screen.obs = tiny_screen.obs.assign(one="a", two="b").rename(
        columns={"one": "group", "two": "group"}
    )
    with pytest.raises(InputError, match="2 columns named 'group'"):
        cd.tl.programs(tiny_screen, tiny_model, "A", groupby="group")


@pytest.mark.parametrize("name", ["time", "dose", "contexts"])
def test_effects_of_nothing(tiny_screen: ad.AnnData, tiny_model: Any, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}=\[\] asks for nothing"):
        cd.tl.effects(tiny_screen, tiny_model, "A", **{name: []})
