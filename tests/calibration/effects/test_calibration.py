"""Standard deviations of predicted log fold changes are as large as the errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from celldit import CellDiT
from celldit.calibration.effects import EffectCalibration
from celldit.calibration.effects.intervals import RESPONDS
from celldit.calibration.rates.means import mean_rates, measured_fold_change
from celldit.conditions.extrapolation import Extrapolation
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.latent import LatentConfig


@pytest.fixture(scope="module")
def screen(simulate_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Perturbations that do something else in every donor."""
    labels = ("control", "control", "A", "B", "C", "D")
    parts = {
        name: simulate_screen(n_cells=1600, n_genes=60, labels=labels, donors=(name,), seed=seed)
        for seed, name in enumerate(("d1", "d2", "d3"))
    }
    adata = ad.concat(parts, index_unique="-")
    CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["donor"]
    )
    return adata


@pytest.fixture(scope="module")
def model(screen: ad.AnnData) -> CellDiT:
    """Trained on half of the cells, without (A, d1)."""
    held_out = (screen.obs["perturbation"] == "A") & (screen.obs["donor"] == "d1")
    train = screen[~held_out.to_numpy() & first_half(screen)]
    model = CellDiT(train, "modules", LatentConfig(n_dims=24, token_dim=4))
    model.train(0, enable_progress_bar=False)
    return model


def first_half(screen: ad.AnnData) -> np.ndarray:
    return np.random.default_rng(0).random(screen.n_obs) < 0.5


def test_what_was_seen_is_better_known(model: CellDiT) -> None:
    effects = model.predict_effects(["A", "B"]).groupby("extrapolation")["sd"].median()
    assert effects["seen"] < 0.8 * effects["new context"]
    assert set(model.trained.calibration.by_kind) >= {Extrapolation.SEEN, Extrapolation.CONTEXT}


def test_intervals_of_seen_conditions_hold_other_cells_of_them(
    model: CellDiT, screen: ad.AnnData
) -> None:
    other = Cells.from_anndata(screen[~first_half(screen)], Fields.from_anndata(screen))
    group = pd.Series(list(zip(other.perturbations, other.contexts, strict=True)))
    code, names = pd.factorize(group)
    rates = mean_rates(other, code, range(len(names)))
    place = {name: i for i, name in enumerate(names)}
    effects = model.predict_effects(["B", "C", "D"])
    inside = []
    for (label, where), own in effects.groupby(["perturbation", "context"]):
        fold_G, variance_G = measured_fold_change(
            rates[place["control", where]], rates[place[label, where]]
        )
        off_G = np.abs(fold_G - own["log_fold_change"].to_numpy())
        responds = fold_G**2 > RESPONDS**2 * variance_G
        inside.append((off_G < 1.645 * np.sqrt(own["sd"] ** 2 + variance_G))[responds])
    assert sum(map(len, inside)) > 40
    assert 0.75 < np.concatenate(inside).mean() <= 1


def test_another_dose_is_not_as_sure_as_the_same(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    # The same perturbations do something else at every dose; control cells are the first part's.
    labels = ("control", "control", "A", "B", "C", "D")
    parts = {
        dose: simulate_screen(n_cells=900, n_genes=60, labels=labels, seed=seed)
        for seed, dose in enumerate(("1", "10", "100"))
    }
    adata = ad.concat(parts, label="dose", index_unique="-")
    control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["dose"] = np.where(control, 0.0, adata.obs["dose"].astype(float))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", dose_key="dose")
    model = train_tiny(adata, max_epochs=0)
    assert model.trained.calibration.n_responding > 0
    median = {dose: model.predict_effects("A", dose=dose)["sd"].median() for dose in (10, 30)}
    assert median[30] > 1.2 * median[10]


def test_never_surer_than_the_prior(model: CellDiT) -> None:
    calibration = model.trained.calibration
    assert min(own.prior for own in (calibration, *calibration.by_kind.values())) >= 1


def test_through_a_file() -> None:
    constant_G, rough_G = np.array([[0.02, 0.5], [0.3, 0.1]], np.float32)
    seen = EffectCalibration(0.3, 0.4, 1.0, 0.1, constant_G, 40, rough=rough_G)
    whole = EffectCalibration(1.0, 0.0, 2.0, 0.0, 0.3, 90, {Extrapolation.SEEN: seen})
    config, arrays = json.loads(json.dumps(whole.to_config())), whole.arrays()
    loaded = EffectCalibration.from_config(config, arrays, 2)
    kinds = (Extrapolation.SEEN, Extrapolation.CONTEXT, None)
    for kind in kinds:
        asked = np.ones(2), np.array([0.0, 1.0]), kind
        np.testing.assert_array_equal(loaded.scale(*asked), whole.scale(*asked))
        np.testing.assert_array_equal(loaded.fold_change(*asked), whole.fold_change(*asked))
    for name in arrays:
        with pytest.raises(ValueError, match="does not fit its genes"):
            EffectCalibration.from_config(config, {name: arrays[name]}, 3)
    first_release = {"prior": 2.0, "relative": 0.0, "constant": 0.3, "n_responding": 90}
    old = EffectCalibration.from_config(first_release, {}, 2)
    for kind in kinds:
        np.testing.assert_allclose(old.scale(np.ones(1), np.zeros(1), kind), 2.3**0.5)
        assert old.fold_change(np.ones(1), np.zeros(1), kind) == 1
    asked = np.ones(1), np.zeros(1)
    assert whole.scale(*asked, kinds[0])[0] < whole.scale(*asked, kinds[1])[0]


def test_a_kind_without_its_own_is_read_as_what_was_seen() -> None:
    seen = EffectCalibration(0.6, 0.4, 1.0, 0.1, 0.1, 40)
    unseen = EffectCalibration(0.1, 0.1, 1.0, 0.0, 0.3, 90)
    by_kind = {Extrapolation.SEEN: seen, Extrapolation.UNSEEN: unseen}
    whole = replace(unseen, by_kind=by_kind)
    asked = np.ones(1), np.zeros(1)
    for kind in (Extrapolation.COMBINATION, None):
        assert whole.fold_change(*asked, kind) == 0.6
        assert whole.scale(*asked, kind) == whole.scale(*asked, Extrapolation.UNSEEN)
    assert whole.fold_change(*asked, Extrapolation.UNSEEN) == 0.1


def test_what_was_learned_earlier_holds_where_nothing_new_was() -> None:
    each_G = np.array([0.1, 0.2, 0.3])
    seen = EffectCalibration(0.6, 0.4, 1.0, 0.1, each_G, 40, rough=2 * each_G)
    earlier = EffectCalibration(1.0, 0.0, 2.0, 0.0, 0.3, 90, {Extrapolation.SEEN: seen})
    tuned = EffectCalibration().with_earlier(earlier, np.array([2, 0]))
    assert tuned.prior == 2.0
    np.testing.assert_array_equal(tuned.by_kind[Extrapolation.SEEN].constant, [0.3, 0.1])
    np.testing.assert_array_equal(tuned.by_kind[Extrapolation.SEEN].rough, [0.6, 0.2])
    assert earlier.with_earlier(seen, np.arange(3)) is earlier
