"""What training promises: it starts at the prior, is repeatable, and sees only its own cells."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from celldit import CellDiT
from celldit.errors import InputError
from celldit.flow.anchored import AnchoredFlow
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig, flow_stage
from celldit.training.config import FORMER, IDLE
from celldit.training.flow_stage import FlowStage

Train = Callable[..., CellDiT]


def weights(model: CellDiT) -> dict[str, torch.Tensor]:
    trained = model.trained
    return {**trained.autoencoder.state_dict(), **trained.flow.state_dict()}


def same(one: CellDiT, two: CellDiT) -> bool:
    a, b = weights(one), weights(two)
    return one.trained.model_id == two.trained.model_id and all(
        torch.equal(a[name], b[name]) for name in a
    )


@pytest.fixture(scope="module")
def screen(_tiny_screen: ad.AnnData) -> ad.AnnData:
    return _tiny_screen


def test_zero_epochs_predict_the_prior_exactly(screen: ad.AnnData, train_tiny: Train) -> None:
    model = train_tiny(screen, max_epochs=0)
    assert not any(model.flow_weight.values())
    z = model.get_latent_representation(screen)
    names = dict(zip(screen.obs_names, z, strict=True))
    size_F = model.trained.autoencoder.scale.repeat_interleave(3).numpy()
    for label in ("A", "A+B", "B+C"):
        predicted = model.predict(perturbations=[label])
        population = model.trained.population
        effects = {c.context: e for c, e in _effects(population, label)}
        for i, cell in enumerate(predicted.obs["control_cell"]):
            expected = names[cell] + effects[predicted.obs["donor"].iloc[i]] * size_F
            np.testing.assert_allclose(predicted.obsm["X_celldit"][i], expected, atol=1e-5)


def _effects(population: Any, label: str) -> list[tuple[Any, np.ndarray]]:
    from celldit.conditions import Condition

    asked = [Condition(tuple(label.split("+")), None, d) for d in ("d1", "d2", "d3")]
    return list(zip(asked, population.estimate(asked).effect, strict=True))


def test_an_untrained_flow_is_the_prior_whatever_its_weight(
    screen: ad.AnnData, train_tiny: Train
) -> None:
    model = train_tiny(screen, max_epochs=0)
    before = model.predict(perturbations=["A"]).obsm["X_celldit"]
    model = model.weighted(0.5)
    np.testing.assert_array_equal(model.predict(perturbations=["A"]).obsm["X_celldit"], before)


def test_the_same_seed_gives_the_same_weights(screen: ad.AnnData, train_tiny: Train) -> None:
    torch.manual_seed(1)
    one = train_tiny(screen)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    two = train_tiny(screen)
    assert same(one, two)
    assert one.flow_weight == two.flow_weight
    assert not same(one, train_tiny(screen, seed=1))


def test_training_leaves_random_numbers_of_others_alone(
    screen: ad.AnnData, train_tiny: Train
) -> None:
    before = torch.random.get_rng_state()
    train_tiny(screen)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_moves_the_flow(tiny_model: CellDiT, train_tiny: Train, screen: Any) -> None:
    start, moved = weights(train_tiny(screen, max_epochs=0)), weights(tiny_model)
    read_out = "dit.trunk.project_out.weight"
    assert not torch.equal(start[read_out], moved[read_out])
    assert all(torch.isfinite(w).all() for w in moved.values() if w.is_floating_point())


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FlowStage]:
    """The runs of the flow that are made."""
    made: list[FlowStage] = []
    monkeypatch.setattr(
        flow_stage, "FlowStage", lambda *a, **k: made.append(FlowStage(*a, **k)) or made[-1]
    )
    return made


def four_epochs(**settings: Any) -> dict[str, Any]:
    return {"max_epochs": 4, "config": {"n_trials": 3, "new_cells": False, **settings}}


def test_a_network_that_saves_nothing_is_given_up_half_way(
    screen: ad.AnnData, train_tiny: Train, runs: list[FlowStage]
) -> None:
    """Shifts of the latent that are the same in all cells leave nothing to a network."""
    model = train_tiny(screen, **four_epochs(least_gain=0.9))
    assert [run.trainer.current_epoch for run in runs] == [2]
    assert not any(model.flow_weight.values())
    # It is still a network, for whoever wants to use it in full.
    kept, average = model.trained.flow.dit.state_dict(), runs[0].averaged_weights()
    assert all(torch.equal(kept[name], average[f"dit.{name}"]) for name in kept)


def test_without_a_least_gain_all_runs_take_all_steps(
    screen: ad.AnnData, train_tiny: Train, runs: list[FlowStage]
) -> None:
    train_tiny(screen, **four_epochs(least_gain=0))
    assert [run.trainer.current_epoch for run in runs] == [4] * 4


def test_a_network_that_saves_enough_is_tried_in_all_trials(
    screen: ad.AnnData, train_tiny: Train, runs: list[FlowStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_stage, "best_gain", lambda errors: 0.5)
    train_tiny(screen, **four_epochs(least_gain=0.4))
    assert [run.trainer.current_epoch for run in runs[:3]] == [4] * 3


@pytest.mark.parametrize(
    "bound", [{"max_steps": 3}, {"max_time": {"seconds": 0}}, {"limit_train_batches": 0}]
)
def test_training_that_the_trainer_ends_early_ends_well(
    screen: ad.AnnData, train_tiny: Train, bound: dict[str, Any]
) -> None:
    model = train_tiny(screen, max_epochs=0)
    config = TrainingConfig(flow_steps_per_epoch=4, n_trials=1, flow_batch=32, new_cells=False)
    model.train(8, config=config, enable_progress_bar=False, **bound)
    assert np.isfinite(model.predict(perturbations=["A"]).X.toarray()).all()


def test_nearly_all_cells_may_be_held_out(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Train
) -> None:
    """The one perturbed condition, and all cells, are then apart in some draws."""
    adata = simulate_screen(60, 12, ("control", "A"), ("d1",))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    for seed in range(4):
        model = train_tiny(adata, seed=seed, config={"held_out_cells": 0.99, "noise_epochs": 1})
        assert np.isfinite(model.generate(5).X.toarray()).all()


def test_history_is_finite_numbers(tiny_model: CellDiT) -> None:
    history = tiny_model.history
    assert set(history) == {"flow", "noise"}
    assert all(np.isfinite(v) for stage in history.values() for row in stage for v in row.values())


def test_held_out_cells_cannot_leak(screen: ad.AnnData, train_tiny: Train) -> None:
    """Test cells of the same object, replaced by garbage, change nothing: no pass sees them."""
    adata = screen.copy()
    adata.obs["split"] = np.where(np.arange(adata.n_obs) % 4 == 0, "test", "train")
    test = (adata.obs["split"] == "test").to_numpy()
    spoilt = adata.copy()
    counts = spoilt.X.toarray()
    counts[test] = np.random.default_rng(0).poisson(50, counts[test].shape)
    spoilt.X = type(spoilt.X)(counts)
    views = [a[a.obs["split"] == "train"] for a in (adata, spoilt)]
    one, two = (train_tiny(view) for view in views)
    assert same(one, two)
    assert same(one, train_tiny(views[0].copy()))


def test_order_of_columns_in_obs_does_not_matter(screen: ad.AnnData, train_tiny: Train) -> None:
    other = screen.copy()
    other.obs = other.obs[other.obs.columns[::-1]]
    other.obs["noise"] = 1.0
    assert same(train_tiny(screen, max_epochs=0), train_tiny(other, max_epochs=0))


def test_average_of_weights_follows_training() -> None:
    torch.manual_seed(0)
    flow = AnchoredFlow(2, 3, DiTConfig(width=8, depth=1, n_heads=2))
    stage = FlowStage(flow, [], TrainingConfig(ema_decay=0.5), 1, 10)
    weight = flow.dit.project_out.weight
    values = []
    for value in (1.0, 3.0, 3.0):
        with torch.no_grad():
            weight.fill_(value)
        stage.average_weights()
        values.append(float(stage.ema.module.dit.project_out.weight.detach().mean()))
    assert values == pytest.approx([1.0, 2.0, 2.5])


@pytest.mark.parametrize(
    ("labels", "donors"),
    [
        (("control",), ("d1", "d2")),
        (("control", "A"), ("d1",)),
        (("control", "A", "B"), ("d1",)),
        (("control", "control", "control", "A+B"), ("d1", "d2")),
    ],
    ids=["controls only", "one perturbation", "no relatives", "one pair"],
)
def test_small_designs_train(
    simulate_screen: Callable[..., ad.AnnData],
    train_tiny: Train,
    labels: tuple[str, ...],
    donors: tuple[str, ...],
) -> None:
    adata = simulate_screen(120, 12, labels, donors)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    model = train_tiny(adata)
    assert np.isfinite(model.generate(5).obsm["X_celldit"]).all()
    for label in labels[-1:]:
        assert np.isfinite(model.predict(perturbations=[label]).obsm["X_celldit"]).all()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"cross_fit": 1.5}, "cross_fit=1.5 must be a number between 0 and 1"),
        ({"ema_decay": 2}, "ema_decay=2 must be a number between 0 and 1"),
        ({"drop_condition": "half"}, "drop_condition='half' must be a number between 0 and 1"),
        ({"flow_rate": "fast"}, "flow_rate='fast' must be a number of at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay=nan must be a number of at least 0"),
        ({"flow_batch": 0}, "flow_batch=0 must be a whole number of at least 1"),
        ({"flow_batch": "64"}, "flow_batch='64' must be a whole number of at least 1"),
        ({"flow_epochs": 2.5}, "flow_epochs=2.5 must be a whole number of at least 0"),
        ({"n_trials": -1}, "n_trials=-1 must be a whole number of at least 0"),
        ({"noise_patience": None}, "noise_patience=None must be a whole number of at least 0"),
    ],
)
def test_config_names_what_is_wrong(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        TrainingConfig(**setting)


@pytest.mark.parametrize("name", sorted(set(FORMER) - set(IDLE)))
def test_options_of_earlier_versions_say_what_to_do(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}= is no option any more\. ."):
        TrainingConfig(**{name: 1})
    # Others are Python's to refuse, and help() still lists those that are there.
    with pytest.raises(TypeError, match="unexpected keyword"):
        TrainingConfig(flow_batches=1)  # type: ignore[call-arg]
    assert list(signature(TrainingConfig).parameters) == [f.name for f in fields(TrainingConfig)]


@pytest.mark.parametrize("epochs", [-1, 1.5])
def test_epochs_are_whole_numbers(tiny_model: CellDiT, epochs: float) -> None:
    with pytest.raises(InputError, match="max_epochs"):
        tiny_model.train(epochs)


def test_misspelt_trainer_arguments_are_refused(tiny_model: CellDiT) -> None:
    with pytest.raises(InputError, match="no argument 'acelerator'; did you mean 'accelerator'"):
        tiny_model.train(1, acelerator="gpu")


def test_no_bar_where_none_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    from celldit.training.loop import progress

    class Notebook:
        is_jupyter = True

    monkeypatch.setattr(progress, "get_console", Notebook)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert progress.without_widgets()
    monkeypatch.setattr(progress, "find_spec", lambda name: name)
    assert not progress.without_widgets()


@pytest.mark.parametrize("name", IDLE)
def test_options_without_effect_are_let_by(name: str) -> None:
    with pytest.warns(FutureWarning, match=rf"^{name}= has no effect any more\. .* leave it out"):
        assert TrainingConfig(**{name: 3}) == TrainingConfig()


def test_warnings_of_training_point_at_the_call(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(n_cells=60, labels=("control", "control", *"ABCDEFGH"))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    with pytest.warns(UserWarning, match="too few for optimal transport") as caught:
        train_tiny(adata)
    (warning,) = (w for w in caught if "optimal transport" in str(w.message))
    assert warning.filename.endswith("tests/conftest.py")
