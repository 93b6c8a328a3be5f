"""A MuData goes in by one of its modalities."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.errors import InputError, UnknownNameError


def like_mudata(mod: dict[str, ad.AnnData], obs: pd.DataFrame) -> Any:
    """What celldit needs of a MuData, which need not be installed."""
    return SimpleNamespace(mod=mod, obs=obs)


def mudata(mod: dict[str, ad.AnnData], obs: pd.DataFrame) -> Any:
    package = pytest.importorskip("mudata")
    made = package.MuData(mod)
    made.obs[list(obs.columns)] = obs.loc[made.obs_names]
    return made


@pytest.fixture(params=[like_mudata, mudata])
def mdata(request: Any, tiny_screen: ad.AnnData) -> Any:
    """Labels lie in the table of all cells, in another order; a panel of antibodies is beside."""
    rna = tiny_screen.copy()
    rna.uns.clear()
    labels = rna.obs[["perturbation", "donor"]].iloc[::-1]
    rna.obs = rna.obs[[]]
    adt = ad.AnnData(np.ones((rna.n_obs, 2), np.float32), obs=pd.DataFrame(index=rna.obs_names))
    adt.var_names = ["CD3", "CD4"]
    return request.param({"rna": rna, "adt": adt}, labels)


SETUP: dict[str, Any] = {"perturbation_key": "perturbation", "covariate_keys": ["donor"]}


def test_a_modality_trains_and_predicts_as_its_anndata(
    mdata: Any, tiny_screen: ad.AnnData, train_tiny: Callable[..., cd.CellDiT]
) -> None:
    cd.CellDiT.setup_anndata(mdata, mod="rna", **SETUP)
    rna = mdata.mod["rna"]
    assert rna.obs["perturbation"].astype(str).tolist() == list(tiny_screen.obs["perturbation"])
    assert "celldit" not in mdata.mod["adt"].uns
    model, expected = (cd.CellDiT(cells, tokenizer="modules") for cells in (mdata, tiny_screen))
    assert model.conditions == expected.conditions
    trained = train_tiny(tiny_screen, max_epochs=0)
    found = trained.predict(mdata, perturbations=["A"])
    again = trained.predict(rna, perturbations=["A"])
    np.testing.assert_array_equal(found.X.toarray(), again.X.toarray())


def test_which_modality_is_asked_before_anything_changes(
    mdata: Any, tiny_model: cd.CellDiT
) -> None:
    setup = cd.CellDiT.setup_anndata
    with pytest.raises(InputError, match=r"MuData with 'rna', 'adt'; say which .* mod='rna'"):
        setup(mdata, **SETUP)
    with pytest.raises(UnknownNameError, match="modality of adata 'rnaa'"):
        setup(mdata, mod="rnaa", **SETUP)
    with pytest.raises(InputError, match="control"):
        setup(mdata, mod="rna", control="NT", **SETUP)
    assert list(mdata.mod["rna"].obs.columns) == []
    assert "celldit" not in mdata.mod["rna"].uns
    with pytest.raises(InputError, match=r"0 of the modalities .* mdata\.mod\['rna'\]"):
        cd.CellDiT(mdata)
    with pytest.raises(InputError, match=r"Expected an AnnData.*mdata\.mod\['rna'\]"):
        cd.tl.embed(mdata, tiny_model)


def test_an_anndata_has_no_modality(tiny_screen: ad.AnnData) -> None:
    with pytest.raises(InputError, match="leave mod= out"):
        cd.CellDiT.setup_anndata(tiny_screen, mod="rna", **SETUP)
