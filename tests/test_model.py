"""The whole way on real data, and what CellDiT says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit import CellDiT
from celldit.errors import InputError, NotTrainedError, UnknownNameError
from celldit.latent import LatentConfig
from celldit.training import TrainingConfig

STRONG = ["IFNGR1", "IFNGR2", "STAT1", "IRF1"]


@pytest.fixture(scope="module")
def papalexi() -> ad.AnnData:
    """About 1,500 cells of two replicates; STAT1 of the second is held out."""
    adata = cd.datasets.papalexi()
    rng = np.random.default_rng(0)
    keep = adata.obs["perturbation"].isin([*STRONG, "control"]) & (
        adata.obs["replicate"] != "rep_3"
    )
    rows = np.sort(rng.permutation(np.flatnonzero(keep))[:1500])
    adata = adata[rows].copy()
    CellDiT.setup_anndata(
        adata,
        perturbation_key="perturbation",
        covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )
    return adata


def is_held_out(adata: ad.AnnData) -> np.ndarray:
    second = sorted(adata.obs["replicate"].unique())[1]
    return ((adata.obs["perturbation"] == "STAT1") & (adata.obs["replicate"] == second)).to_numpy()


@pytest.fixture(scope="module")
def model(papalexi: ad.AnnData) -> CellDiT:
    model = CellDiT(papalexi[~is_held_out(papalexi)].copy(), latent=LatentConfig(n_dims=24))
    config = TrainingConfig(flow_steps_per_epoch=10, n_trials=1)
    model.train(1, config=config, enable_progress_bar=False)
    return model


def test_the_whole_way(model: CellDiT, papalexi: ad.AnnData, tmp_path: Path) -> None:
    predicted = model.predict(perturbations=["STAT1", "IRF1+STAT1"])
    held_out = is_held_out(papalexi)
    truth = papalexi[held_out]
    place = truth.obs["replicate"].iloc[0]
    control = papalexi[
        (papalexi.obs["perturbation"] == "control") & (papalexi.obs["replicate"] == place)
    ]

    def mean_of(adata: ad.AnnData) -> np.ndarray:
        size = adata.obs["total_umis"].to_numpy()[:, None]
        return np.log1p(1e4 * adata.X.toarray() / size).mean(0)

    own = predicted[
        (predicted.obs["perturbation"] == "STAT1") & (predicted.obs["replicate"] == place)
    ]
    assert set(own.obs["extrapolation"]) == {"new context"}
    shift = own.X.toarray().mean(0) - mean_of(control)
    assert np.corrcoef(shift, mean_of(truth) - mean_of(control))[0, 1] > 0.6

    effects = model.predict_effects(["STAT1"])
    assert {"perturbation", "context", "gene", "log_fold_change", "sd"} <= set(effects)
    assert len(effects) == 2 * papalexi.n_vars
    fold = effects.groupby("gene")["log_fold_change"].mean()
    # STAT1 itself and two genes that interferon switches on through it.
    assert (fold[["STAT1", "PSMB9", "UBE2L6"]] < -0.3).all()
    assert fold.abs().rank(ascending=False)["STAT1"] < 30

    synthetic = model.generate(50, perturbation="STAT1")
    assert synthetic.n_obs == 50

    model.save(tmp_path / "model")
    loaded = CellDiT.load(tmp_path / "model")
    again, here = (m.predict(control, perturbations=["STAT1"]) for m in (loaded, model))
    assert (again.layers["counts"] != here.layers["counts"]).nnz == 0

    table = cd.tl.evaluate(own, truth, control)
    assert {"perturbation", "context", "metric", "value"} <= set(table.columns)
    assert len(table)


def test_effects_of_the_control_are_none(tiny_model: CellDiT) -> None:
    table = tiny_model.predict_effects(["control"])
    assert (table["log_fold_change"] == 0).all()


def test_effects_of_the_control_are_certain(tiny_model: CellDiT) -> None:
    assert (tiny_model.predict_effects(["control"])["sd"] == 0).all()


def test_effects_have_the_sign_of_the_data(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(800, 30, ("control", "A"), ("d1",), seed=4)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    table = train_tiny(adata, max_epochs=0).predict_effects(["A"]).set_index("gene")
    treated = (adata.obs["perturbation"] == "A").to_numpy()
    counts = adata.X.toarray()
    rate = [counts[rows].sum(0) / counts[rows].sum() for rows in (treated, ~treated)]
    truth = np.log((rate[0] + 1e-4) / (rate[1] + 1e-4))
    estimate = table.loc[adata.var_names, "log_fold_change"].to_numpy()
    assert np.corrcoef(estimate, truth)[0, 1] > 0.7
    assert (table["sd"] > 0).all()


def test_latent_of_training_cells(tiny_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    z = tiny_model.get_latent_representation()
    assert z.shape == (480, 6)
    assert z.dtype == np.float32
    assert np.array_equal(z, tiny_model.get_latent_representation(tiny_screen))
    tokens = tiny_model.get_latent_representation(unit_scale=True).reshape(480, 2, 3)
    np.testing.assert_allclose(np.sqrt((tokens**2).mean((0, 2))), 1, atol=1e-3)


def test_what_a_model_knows(tiny_model: CellDiT) -> None:
    assert tiny_model.perturbations == ("A", "B", "C")
    assert len(tiny_model.conditions) == 15
    assert repr(tiny_model) == "CellDiT(40 genes, 3 perturbations, 15 conditions, trained)"
    assert set(tiny_model.flow_weight) == {
        "seen", "between times", "beyond times", "new context", "new combination",
        "known elsewhere",
        "unseen with features", "unseen without features",
    }  # fmt: skip
    assert all(0 <= weight <= 1 for weight in tiny_model.flow_weight.values())
    assert tiny_model.trust == tiny_model.flow_weight


def test_the_network_can_be_left_out_or_used_in_full(flowing_model: CellDiT) -> None:
    before = flowing_model.flow_weight
    alone, whole = (flowing_model.weighted(weight) for weight in (0, 1))
    assert set(alone.flow_weight.values()) == {0.0}
    one, two = (m.predict(perturbations=["A"]) for m in (alone, whole))
    assert not np.allclose(one.obsm["X_celldit"], two.obsm["X_celldit"])
    assert (one.obs["flow_weight"] == 0).all()
    assert (two.obs["flow_weight"] == 1).all()
    assert flowing_model.flow_weight == before
    for weight in (-0.1, 1.5, float("nan"), "all"):
        with pytest.raises(InputError, match="weight"):
            flowing_model.weighted(weight)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.predict(perturbations=["A"]),
        lambda m: m.generate(3),
        lambda m: m.predict_effects(["A"]),
        lambda m: m.get_latent_representation(),
        lambda m: m.flow_weight,
        lambda m: m.history,
    ],
    ids=["predict", "generate", "predict_effects", "latent", "flow_weight", "history"],
)
def test_before_training(tiny_screen: ad.AnnData, call: Callable[[CellDiT], object]) -> None:
    model = CellDiT(tiny_screen, "modules")
    assert not model.is_trained
    assert "not trained" in repr(model)
    with pytest.raises(NotTrainedError, match=r"call model\.train\(\) first"):
        call(model)


def test_a_model_needs_setup(simulate_screen: Callable[..., ad.AnnData]) -> None:
    with pytest.raises(InputError, match="was not set up"):
        CellDiT(simulate_screen(20, 5))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"perturbation_key": "guide"}, UnknownNameError),
        ({"control": "ctrl"}, InputError),
        ({"covariate_keys": ["doner"]}, UnknownNameError),
        ({"counts_layer": "raw"}, UnknownNameError),
        ({"dose_key": "donor"}, InputError),
        ({"time_key": "donor"}, InputError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_failed_setup_changes_nothing(
    simulate_screen: Callable[..., ad.AnnData], change: dict[str, object], error: type[Exception]
) -> None:
    adata = simulate_screen(20, 5)
    before = adata.copy()
    with pytest.raises(error):
        CellDiT.setup_anndata(adata, **{"perturbation_key": "perturbation", **change})
    assert not adata.uns
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert (adata.X != before.X).nnz == 0


def test_training_changes_neither_data_nor_tokenizer(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT]
) -> None:
    from celldit.tokenizers.genes import Genes

    before, tokenizer = tiny_screen.copy(), Genes(5)
    train_tiny(tiny_screen, tokenizer=tokenizer)
    pd.testing.assert_frame_equal(tiny_screen.obs, before.obs)
    assert (tiny_screen.X != before.X).nnz == 0
    assert tiny_screen.uns == before.uns
    with pytest.raises(NotTrainedError):
        _ = tokenizer.genes


def test_later_changes_of_the_data_do_not_reach_the_model(tiny_screen: ad.AnnData) -> None:
    model = CellDiT(tiny_screen, "modules")
    before = model._model.cells.counts.copy()
    tiny_screen.X.data[:] = 99
    tiny_screen.obs["perturbation"] = "control"
    assert (model._model.cells.counts != before).nnz == 0
    assert set(model._model.cells.perturbations) == {"control", "A", "B", "C", "A+B"}


def test_guidance_where_it_was_trained_for(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT]
) -> None:
    model = train_tiny(tiny_screen, config={"drop_condition": 0.3})
    assert model.predict(perturbations=["A"], guidance=1.5).n_obs == 160


def test_effects_at_a_time_need_times(tiny_model: CellDiT) -> None:
    with pytest.raises(InputError, match="without time_key"):
        tiny_model.predict_effects(["A"], time=1.0)


def test_a_model_is_moved_to_where_it_is_asked_to(tiny_model: CellDiT) -> None:
    assert tiny_model.to("cpu") is tiny_model
    with pytest.raises(InputError, match="device='meta': celldit finds no such device here"):
        tiny_model.to("meta")
