"""A trained model goes on with other data: genes by name, old effects kept, new ones learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import celldit as cd
from celldit import CellDiT
from celldit.conditions.extrapolation import Extrapolation
from celldit.effects.fit_prior import joined
from celldit.errors import InputError, NotTrainedError, UnknownNameError
from celldit.latent import LatentConfig
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig
from celldit.training.fine_tune import with_what_was_known

CONFIG = TrainingConfig(flow_steps_per_epoch=4, n_trials=1, flow_batch=32)
QUICK: dict[str, Any] = {"config": CONFIG, "enable_progress_bar": False}


def setup(adata: ad.AnnData, **fields: Any) -> ad.AnnData:
    adata = adata.copy()
    adata.uns.pop("celldit", None)
    CellDiT.setup_anndata(
        adata, **{"perturbation_key": "perturbation", "covariate_keys": ["donor"], **fields}
    )
    return adata


def shift(adata: ad.AnnData, control: ad.AnnData) -> np.ndarray:
    """Mean change of log expression."""

    def mean(data: ad.AnnData) -> np.ndarray:
        counts = np.asarray(data.X.todense(), dtype=float)
        return np.log1p(1e4 * counts / counts.sum(1, keepdims=True)).mean(0)

    return mean(adata) - mean(control)


def predicted_shift(predicted: ad.AnnData, control: ad.AnnData) -> np.ndarray:
    counts = np.asarray(control.X.todense(), dtype=float)
    before = np.log1p(1e4 * counts / counts.sum(1, keepdims=True)).mean(0)
    return np.asarray(predicted.X.todense()).mean(0) - before


@pytest.fixture
def saved(tiny_model: CellDiT, tmp_path: Path) -> Path:
    tiny_model.save(tmp_path / "model")
    return tmp_path / "model"


def test_genes_in_another_order_change_nothing(
    tiny_screen: ad.AnnData, tiny_model: CellDiT, saved: Path
) -> None:
    order = np.random.default_rng(0).permutation(tiny_screen.n_vars)
    model = CellDiT.load(saved).fine_tune(setup(tiny_screen[:, order]), max_epochs=0, **QUICK)
    assert model.genes == tuple(tiny_screen.var_names[order])
    np.testing.assert_allclose(
        model.get_latent_representation(), tiny_model.get_latent_representation(), atol=1e-4
    )
    loadings, before = (m.trained.autoencoder.decoder.loadings for m in (model, tiny_model))
    torch.testing.assert_close(loadings, before[:, torch.from_numpy(order)], atol=0.1, rtol=0.1)


def test_dropped_and_new_genes_train_and_survive_a_folder(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT], tmp_path: Path
) -> None:
    train_tiny(tiny_screen).save(tmp_path / "model")
    other = tiny_screen[:, np.random.default_rng(1).permutation(40)[:32]].copy()
    other.var_names = [f"new{i}" if i < 3 else name for i, name in enumerate(other.var_names)]
    model = CellDiT.load(tmp_path / "model")
    assert model.fine_tune(setup(other), max_epochs=1, **QUICK) is model
    predicted = model.predict(perturbations=["A", "B+C"])
    assert list(predicted.var_names) == list(other.var_names)
    assert np.isfinite(predicted.obsm["X_celldit"]).all()
    assert "29 of the model's 40 genes" in model.trained.trained_with["fine_tuned"]["genes"]
    model.save(tmp_path / "tuned")
    again = CellDiT.load(tmp_path / "tuned")
    for p in (predicted, again.predict(other, perturbations=["A", "B+C"])):
        np.testing.assert_array_equal(p.obsm["X_celldit"], predicted.obsm["X_celldit"])


def test_the_encoder_stays_and_the_decoder_learns(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT]
) -> None:
    model = train_tiny(tiny_screen)
    before = {n: t.clone() for n, t in model.trained.autoencoder.state_dict().items()}
    other = tiny_screen.copy()
    other.X = (other.X + other.X.multiply(np.arange(40)[None] % 2 * 4)).tocsr().astype(np.int32)
    model.fine_tune(setup(other), max_epochs=4, **QUICK)
    after = model.trained.autoencoder.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    assert all(p.requires_grad for p in model.trained.autoencoder.parameters())


def test_new_perturbations_are_learned_and_old_ones_kept(
    tiny_screen: ad.AnnData, saved: Path
) -> None:
    other = tiny_screen[tiny_screen.obs["perturbation"].isin(["control", "C"])].copy()
    renamed = {"control": "control", "C": "D"}
    other.obs["perturbation"] = other.obs["perturbation"].astype(str).map(renamed)
    other.obs["donor"] = "d9"
    model = CellDiT.load(saved).fine_tune(setup(other), max_epochs=1, **QUICK)
    assert model.perturbations == ("A", "B", "C", "D")
    predicted = model.predict(perturbations=["A", "D", "A+D"])
    kinds = dict(zip(predicted.obs["perturbation"], predicted.obs["extrapolation"], strict=True))
    assert kinds == {"A": "new context", "D": "seen", "A+D": "new combination"}
    assert set(model.flow_weight) == set(Extrapolation)


def test_effects_are_carried_to_a_context_known_by_its_controls(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(900, 40)
    old = adata[adata.obs["donor"] != "d3"]
    new = adata[(adata.obs["donor"] == "d3") & (adata.obs["perturbation"] == "control")]
    model, labels = train_tiny(setup(old)), ("A", "A+B")
    before = {name: model.predict(setup(new), perturbations=[name]) for name in labels}
    model.fine_tune(setup(new), max_epochs=0, **QUICK)
    for label in labels:
        truth = adata[(adata.obs["donor"] == "d3") & (adata.obs["perturbation"] == label)]
        r = [
            np.corrcoef(predicted_shift(predicted, new), shift(truth, new))[0, 1]
            for predicted in (before[label], model.predict(perturbations=[label]))
        ]
        assert r[1] > max(0.5, r[0] - 0.05)


def test_what_was_seen_before_and_now_is_weighted(tiny_model: CellDiT) -> None:
    prior = tiny_model.trained.population.prior
    both = joined(prior, prior)
    assert set(both.conditions) == set(prior.conditions)
    np.testing.assert_allclose(both.shifts, prior.shifts, atol=1e-9)
    np.testing.assert_allclose(both.noise, prior.noise / 2)
    nothing = prior.without(prior.conditions)
    assert joined(prior, nothing) is prior
    np.testing.assert_allclose(joined(nothing, prior).shifts, prior.shifts, atol=1e-9)


def test_the_model_it_came_from_is_not_changed(tiny_screen: ad.AnnData, saved: Path) -> None:
    model = CellDiT.load(saved)
    trained = model.trained
    before = {n: t.clone() for n, t in trained.flow.state_dict().items()}
    model.fine_tune(setup(tiny_screen), max_epochs=2, seed=3, **QUICK)
    assert model.trained is not trained
    assert model.trained.model_id != trained.model_id
    assert all(torch.equal(t, before[n]) for n, t in trained.flow.state_dict().items())


def test_it_goes_on_from_a_checkpoint_of_its_own_start_only(
    tiny_screen: ad.AnnData, saved: Path, tmp_path: Path, train_tiny: Callable[..., CellDiT]
) -> None:
    other, folder = setup(tiny_screen[:, :35]), tmp_path / "checkpoints"
    first = CellDiT.load(saved).fine_tune(other, max_epochs=1, checkpoint_dir=folder, **QUICK)
    again = CellDiT.load(saved).fine_tune(other, max_epochs=1, checkpoint_dir=folder, **QUICK)
    assert again.trained.model_id == first.trained.model_id
    with pytest.raises(InputError, match=r"differs in start \("):
        train_tiny(tiny_screen, seed=1).fine_tune(
            other, max_epochs=1, checkpoint_dir=folder, **QUICK
        )


def test_bad_input_is_refused(tiny_screen: ad.AnnData, saved: Path) -> None:
    with pytest.raises(NotTrainedError, match="not trained"):
        CellDiT(tiny_screen, "modules").fine_tune(tiny_screen)
    model = CellDiT.load(saved)
    trained = model.trained
    with pytest.raises(InputError, match=r"Only 10 of the model's 40 genes are in the data \(25%"):
        model.fine_tune(setup(tiny_screen[:, :10]), **QUICK)
    with pytest.raises(InputError, match=r"trained with 1 covariates \['donor'\].*with 0 \[\]"):
        model.fine_tune(setup(tiny_screen, covariate_keys=[]), **QUICK)
    timed = tiny_screen.copy()
    timed.obs["day"] = 1.0
    with pytest.raises(InputError, match="The model has no time_key, these data have one"):
        model.fine_tune(setup(timed, time_key="day"), **QUICK)
    assert model.trained is trained


# --- real data ---------------------------------------------------------------------------------

SMALL = {
    "latent": LatentConfig(n_dims=24),
    "dit": DiTConfig(width=16, depth=1, n_heads=2),
}


def test_kang_goes_to_a_cell_type_known_by_its_controls() -> None:
    adata = cd.datasets.kang()
    adata = adata[adata.obs["cell_type"].isin(["CD14 Mono", "CD16 Mono", "B", "CD4 Naive T"])]
    variable = np.asarray(adata.X.power(2).mean(0)).ravel().argsort()[-150:]
    adata = adata[::2, np.sort(variable)].copy()
    fields = {
        "perturbation_key": "condition",
        "covariate_keys": ["cell_type"],
        "size_factor_key": "total_umis",
    }
    is_new = (adata.obs["cell_type"] == "CD14 Mono").to_numpy()
    is_control = (adata.obs["condition"] == "control").to_numpy()
    model = CellDiT(setup(adata[~is_new], **fields), "modules", **SMALL)
    model.train(1, **QUICK)
    controls = setup(adata[is_new & is_control], **fields)
    model.fine_tune(controls, max_epochs=1, **QUICK)
    predicted = model.predict(perturbations=["IFNB"])
    assert set(predicted.obs["extrapolation"]) == {"new context"}
    truth = adata[is_new & ~is_control]
    told = predicted.layers["mean"].mean(0) - controls.X.mean(0)
    seen = truth.X.mean(0) - controls.X.mean(0)
    r = np.corrcoef(np.asarray(told).ravel(), np.asarray(seen).ravel())[0, 1]
    assert r > 0.6


def test_papalexi_with_genes_dropped_and_permuted_predicts_as_before() -> None:
    adata = cd.datasets.papalexi()
    adata = adata[adata.obs["perturbation"].isin(["control", "STAT1", "IRF1", "JAK2"])]
    adata = adata[::4].copy()
    fields = {"covariate_keys": ["replicate"], "size_factor_key": "total_umis"}
    first = setup(adata[adata.obs["replicate"] != "rep_3"], **fields)
    model = CellDiT(first, "modules", **SMALL)
    model.train(1, **QUICK)
    before = model.predict_effects(["STAT1"]).set_index(["context", "gene"])["log_fold_change"]
    genes = np.random.default_rng(0).permutation(adata.n_vars)[: int(0.8 * adata.n_vars)]
    second = setup(adata[adata.obs["replicate"] == "rep_3"][:, genes], **fields)
    model.fine_tune(second, max_epochs=1, **QUICK)
    after = model.predict_effects(["STAT1"]).set_index(["context", "gene"])["log_fold_change"]
    both = sorted(set(before.xs("rep_1").index) & set(after.xs("rep_3").index))
    assert len(both) == len(genes)
    r = np.corrcoef(before.xs("rep_1")[both], after.xs("rep_3")[both])[0, 1]
    assert r > 0.8


def test_new_cells_of_a_tuned_model_have_its_genes_and_contexts(tiny_model, tiny_screen):
    import copy

    fewer = tiny_screen[:, list(tiny_screen.var_names[::-1][:30])].copy()
    fewer.obs["donor"] = ("new " + fewer.obs["donor"].astype(str)).astype("category")
    model = copy.copy(tiny_model).fine_tune(fewer, max_epochs=1, enable_progress_bar=False)
    made = model.generate(20, perturbation="A")
    assert list(made.var_names) == list(fewer.var_names)
    assert set(made.obs["donor"]) <= set(fewer.obs["donor"]) | set(tiny_screen.obs["donor"])
    assert model.trained.new_cell_model is not tiny_model.trained.new_cell_model
    before = tiny_model.generate(20, perturbation="A")
    assert list(before.var_names) == list(tiny_screen.var_names)


def test_a_new_training_after_tuning_knows_its_own_conditions_alone(
    tiny_screen: ad.AnnData, saved: Path
) -> None:
    kept = tiny_screen[tiny_screen.obs["perturbation"].isin(["control", "A"])]
    model = CellDiT.load(saved).fine_tune(setup(kept), max_epochs=1, **QUICK)
    assert "B" in model.perturbations
    model.train(max_epochs=1, **QUICK)
    assert model.perturbations == ("A",)
    assert set(model.trained.frequencies) == set(model.conditions)
    assert set(model.predict_effects("A")["perturbation"]) == {"A"}
    with pytest.raises(UnknownNameError, match="known: 'A'"):
        model.predict(perturbations=["B"])


def test_cells_on_disk_stay_there(tiny_screen: ad.AnnData, saved: Path, tmp_path: Path) -> None:
    other = setup(tiny_screen[:, :35])
    other.write_h5ad(tmp_path / "cells.h5ad")
    in_memory = CellDiT.load(saved).fine_tune(other, max_epochs=1, **QUICK)
    on_disk = CellDiT.load(saved).fine_tune(tmp_path / "cells.h5ad", max_epochs=1, **QUICK)
    assert on_disk._model.cells is not None
    assert on_disk._model.cells.on_disk
    assert on_disk.trained.model_id == in_memory.trained.model_id


@pytest.mark.parametrize("options", [{"max_epochs": 0}, {"max_epochs": 1, "noise_epochs": 0}])
def test_without_epochs_the_flow_from_noise_stays(
    options: dict[str, int], flowing_model: CellDiT, tiny_screen: ad.AnnData, tmp_path: Path
) -> None:
    """Its weights and how far it is trusted; no epoch of its own is no reason to forget it."""
    flowing_model.save(tmp_path / "model")
    model = CellDiT.load(tmp_path / "model")
    before = model.trained.flow
    assert float(before.noise_trust) == 1
    config = TrainingConfig(
        flow_steps_per_epoch=4, n_trials=1, flow_batch=32,
        noise_epochs=options.get("noise_epochs", 20),
    )  # fmt: skip
    asked = {"config": config, "enable_progress_bar": False, "max_epochs": options["max_epochs"]}
    model.fine_tune(setup(tiny_screen), **asked)
    after = model.trained.flow
    assert float(after.noise_trust) == 1
    kept = before.from_noise.state_dict()
    assert all(torch.equal(t, kept[n]) for n, t in after.from_noise.state_dict().items())


def test_what_is_known_of_single_genes_is_kept_if_it_is_known_of_all(tiny_model: CellDiT) -> None:
    earlier = tiny_model.trained
    turned = replace(earlier, genes=earlier.genes[::-1], control_rates={})
    rates = with_what_was_known(turned, earlier).control_rates
    assert list(rates) == list(earlier.control_rates)
    for key, rate_G in earlier.control_rates.items():
        np.testing.assert_array_equal(rates[key], rate_G[::-1])
    other = replace(turned, genes=("new", *earlier.genes[1:]))
    assert with_what_was_known(other, earlier).control_rates == {}
    assert with_what_was_known(other, earlier).mean_calibration is other.mean_calibration
