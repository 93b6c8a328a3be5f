"""Several screens are one, each with its own controls."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest

from celldit import CellDiT
from celldit.data.screens.joined import join_screens
from celldit.errors import InputError, UnknownNameError


def two(simulate: Any) -> tuple[ad.AnnData, ad.AnnData]:
    """Two laboratories that call things differently and measure other genes."""
    whole = simulate(960, 40)
    one, other = whole[:480, :34].copy(), whole[480:, 6:].copy()
    other.obs["guide"] = other.obs.pop("perturbation").replace({"control": "NT"})
    other.layers["raw"] = other.X.copy()
    other.X = np.log1p(other.X.toarray())
    other = other[other.obs["guide"] != "C"].copy()
    CellDiT.setup_anndata(one, perturbation_key="perturbation", covariate_keys=["donor"])
    CellDiT.setup_anndata(
        other, perturbation_key="guide", control="NT", covariate_keys=["donor"], counts_layer="raw"
    )
    return one, other


def test_genes_and_labels_are_matched(simulate_screen: Any) -> None:
    one, other = two(simulate_screen)
    joined = join_screens({"us": one, "them": other})
    assert list(joined.var_names) == [f"gene{i}" for i in range(6, 34)]
    assert joined.n_obs == one.n_obs + other.n_obs
    theirs = joined[joined.obs["screen"] == "them"]
    assert set(theirs.obs["perturbation"]) == {"control", "A", "B", "A+B"}
    row = theirs.obs_names.get_loc(f"them: {other.obs_names[5]}")
    np.testing.assert_array_equal(
        theirs.X[row].toarray().ravel(),
        other[:, joined.var_names].layers["raw"][5].toarray().ravel(),
    )
    assert "screen" not in one.obs


def test_effects_of_one_screen_are_predicted_in_the_other(
    simulate_screen: Any, train_tiny: Any
) -> None:
    one, other = two(simulate_screen)
    model = train_tiny({"us": one, "them": other}, max_epochs=0)
    assert {c.split(" | ")[1] for c in model.trained.population.contexts} == {"us", "them"}
    effects = model.predict_effects(["C"])
    kinds = effects.groupby(effects["context"].str.contains("them"))["extrapolation"].first()
    assert dict(kinds) == {False: "seen", True: "new context"}
    assert CellDiT([one, other], "modules").fields.covariate_keys == ("donor", "screen")


def test_refused(simulate_screen: Any) -> None:
    one, other = two(simulate_screen)
    with pytest.raises(InputError, match="give two or more"):
        CellDiT([one])
    with pytest.raises(InputError, match="Expected an AnnData as screens"):
        CellDiT([one, 3])  # type: ignore[list-item]
    bare = other.copy()
    CellDiT.setup_anndata(bare, perturbation_key="guide", control="NT", counts_layer="raw")
    with pytest.raises(InputError, match="different covariates"):
        CellDiT([one, bare])
    strange = other.copy()
    strange.var_names = [f"x{name}" for name in strange.var_names]
    with pytest.raises(InputError, match="share 0 genes"):
        CellDiT([one, strange])
    sized = other.copy()
    sized.obs["total"] = 100.0
    keys = {"perturbation_key": "guide", "control": "NT", "covariate_keys": ["donor"]}
    CellDiT.setup_anndata(sized, counts_layer="raw", size_factor_key="total", **keys)
    with pytest.raises(InputError, match="has a size_factor_key"):
        CellDiT([one, sized])
    CellDiT.setup_anndata(sized, counts_layer="raw", perturbation_sep="_", **keys)
    with pytest.raises(InputError, match="write them alike"):
        CellDiT([one, sized])


def halves(simulate: Any) -> tuple[ad.AnnData, ad.AnnData]:
    whole = simulate(960, 40)
    return whole[:480].copy(), whole[480:].copy()


def test_numbers_as_labels_are_what_they_are_in_one_screen(simulate_screen: Any) -> None:
    code = {"control": 0.0, "A": 1.0, "B": 2.0, "C": 3.0, "A+B": 4.0}
    one, other = halves(simulate_screen)
    for screen in (one, other):
        screen.obs["perturbation"] = screen.obs["perturbation"].map(code).astype(float)
        screen.obs["donor"] = screen.obs["donor"].str[1:].astype(float)
        keys = {"perturbation_key": "perturbation", "covariate_keys": ["donor"]}
        CellDiT.setup_anndata(screen, control=0, **keys)
    joined = join_screens([one, other])
    assert set(joined.obs["perturbation"]) == {"0", "1", "2", "3", "4"}
    assert set(joined.obs["donor"]) == {"1", "2", "3"}


def test_a_control_of_another_name_within_combinations(simulate_screen: Any) -> None:
    one, other = halves(simulate_screen)
    names = {"control": "NT", "A": "A+NT", "B": "safe+B"}
    other.obs["perturbation"] = other.obs["perturbation"].astype(str).replace(names)
    CellDiT.setup_anndata(one, perturbation_key="perturbation")
    CellDiT.setup_anndata(other, perturbation_key="perturbation", control=["NT", "safe"])
    assert CellDiT([one, other], "modules").perturbations == ("A", "B", "C")


def test_a_layer_that_is_gone(simulate_screen: Any) -> None:
    one, other = halves(simulate_screen)
    for screen in (one, other):
        screen.layers["raw"] = screen.X.copy()
        CellDiT.setup_anndata(screen, perturbation_key="perturbation", counts_layer="raw")
    del other.layers["raw"]
    with pytest.raises(UnknownNameError, match=r"layer in adata\.layers 'raw'"):
        join_screens([one, other])
