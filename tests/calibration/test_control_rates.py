"""Log fold changes are counted from the rates of the control cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from celldit import CellDiT
from celldit.calibration.rates import control as control_rates
from celldit.calibration.rates.fold_change import PSEUDO_RATE


def test_rates_are_those_of_the_controls(tiny_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    rates = tiny_model.trained.control_rates
    assert sorted(rates) == [("d1", None), ("d2", None), ("d3", None)]
    own = tiny_screen[
        (tiny_screen.obs["donor"] == "d2") & (tiny_screen.obs["perturbation"] == "control")
    ].X.toarray()
    mean_G = (1e4 * own / own.sum(1, keepdims=True)).mean(0)
    # One count at the decoded rate is added to hundreds.
    much = own.sum(0) > 30
    np.testing.assert_allclose(rates["d2", None][much], mean_G[much], rtol=0.1)
    assert (rates["d2", None] > 0).all()


def test_a_gene_that_wakes_is_counted_from_silence(train_tiny: Callable[..., CellDiT]) -> None:
    # Gene 0 is silent in the controls of one donor and not in the other's, so that the decoder,
    # which serves both, expects some of it everywhere.
    rng = np.random.default_rng(0)
    label, donor = np.tile(["control", "A"], 400), np.repeat(["x", "y"], 400)
    rate = rng.gamma(2.0, 2.0, 30) * rng.gamma(5, 0.2, (800, 1))
    rate[:, 0] = np.where(label == "A", 8.0, np.where(donor == "x", 0.004, 4.0))
    adata = ad.AnnData(rng.poisson(rate).astype(np.float32))
    adata.obs["perturbation"], adata.obs["donor"] = label, donor
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    table = train_tiny(adata, max_epochs=0).predict_effects(["A"])
    predicted = table[table["gene"] == "0"].set_index("context")["log_fold_change"]
    rates = [1e4 * adata.X / adata.X.sum(1, keepdims=True)]
    for where in ("x", "y"):
        treated, control = (
            rates[0][(label == name) & (donor == where), 0].mean() + PSEUDO_RATE
            for name in ("A", "control")
        )
        assert predicted[where] == pytest.approx(np.log(treated / control), rel=0.25)


def test_they_are_saved(tiny_model: CellDiT, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model")
    loaded = CellDiT.load(tmp_path / "model").trained.control_rates
    assert list(loaded) == list(tiny_model.trained.control_rates)
    for key, rate_G in tiny_model.trained.control_rates.items():
        np.testing.assert_array_equal(loaded[key], rate_G)


def test_arrays_that_do_not_fit_are_refused() -> None:
    rates = {"rates": np.ones((2, 3), dtype=np.float32)}
    assert control_rates.from_arrays([], {}, 3) == {}
    with pytest.raises(ValueError, match="contexts"):
        control_rates.from_arrays([["a", None]], rates, 3)
    with pytest.raises(ValueError, match="genes"):
        control_rates.from_arrays([["a", None], ["b", None]], rates, 4)
