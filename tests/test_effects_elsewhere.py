"""A screen as a table, and a model of other cells that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit import CellDiT
from celldit.errors import FileError, InputError, UnknownNameError

LABELS = ("control", "control", "A", "B", "C", "D", "E", "F")


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    """Cells that vary along three programmes of genes, along which perturbations move them."""
    rng, n_cells, n_genes = np.random.default_rng(0), 1600, 60
    label = rng.permutation(np.resize(LABELS, n_cells))
    programs = rng.normal(0, 0.5, (3, n_genes))
    state = 0.7 * rng.normal(size=(n_cells, 3))
    for name in sorted(set(LABELS) - {"control"}):
        state[label == name] += 1.2 * rng.normal(size=3)
    log_rate = np.log(rng.gamma(2.0, 1.5, n_genes)) + state @ programs
    counts = rng.poisson(np.exp(log_rate) * rng.gamma(5, 0.2, (n_cells, 1)))
    counts[:, 0] += 1
    obs = pd.DataFrame({"perturbation": label}, index=[f"cell{i}" for i in range(n_cells)])
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)])
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.int32)), obs, var)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    return adata


@pytest.fixture(scope="module")
def table(screen: ad.AnnData) -> ad.AnnData:
    """Of every second cell."""
    return cd.pp.effect_table(
        screen[::2].copy(), source="lab two", licence="CC BY 4.0", direction="knock-out"
    )


@pytest.fixture(scope="module")
def others(screen: ad.AnnData) -> ad.AnnData:
    """The other cells, without E and F."""
    rest = screen[1::2]
    return rest[~rest.obs["perturbation"].isin(["E", "F"]).to_numpy()].copy()


@pytest.fixture(scope="module")
def model(others: ad.AnnData, table: ad.AnnData, train_tiny: Any) -> CellDiT:
    return train_tiny(others, max_epochs=0, effects=table)


def test_a_table_says_what_cells_do(screen: ad.AnnData, table: ad.AnnData) -> None:
    own = screen[::2]
    counts = own.X.toarray()
    rates = counts / counts.sum(1, keepdims=True) * 1e4
    treated = (own.obs["perturbation"] == "A").to_numpy()
    control = (own.obs["perturbation"] == "control").to_numpy()
    plain = np.log(rates[treated].mean(0) + 0.05) - np.log(rates[control].mean(0) + 0.05)
    row = list(table.obs["perturbation"]).index("A")
    np.testing.assert_allclose(table.X[row], plain, atol=0.05)
    assert table.obs["n_cells"].iloc[row] == treated.sum()
    assert set(table.obs["direction"]) == {"knock-out"}
    assert table.uns["effect_table"]["licence"] == "CC BY 4.0"


def test_errors_are_those_of_repeated_halves(screen: ad.AnnData) -> None:
    rng, differences, said = np.random.default_rng(0), [], []
    for _ in range(6):
        order = rng.permutation(screen.n_obs)
        first, second = (
            cd.pp.effect_table(screen[np.sort(rows)].copy())
            for rows in (order[: len(order) // 2], order[len(order) // 2 :])
        )
        differences.append(first.X - second.X)
        said.append(first.layers["se"] ** 2 + second.layers["se"] ** 2)
    # Of genes that are hardly seen more is left open than halves differ by.
    seen = np.asarray(screen.X.mean(axis=0)).ravel() > 1
    ratio = np.mean(np.square(differences)[..., seen]) / np.mean(np.array(said)[..., seen])
    assert 0.7 < ratio < 1.3


def test_a_screen_on_disk_gives_the_same_and_stays_unchanged(
    screen: ad.AnnData, tmp_path: Path
) -> None:
    before = screen.copy()
    whole = cd.pp.effect_table(screen)
    screen.copy().write_h5ad(tmp_path / "s.h5ad")
    stored = cd.pp.effect_table(tmp_path / "s.h5ad", out=tmp_path / "t.h5ad")
    np.testing.assert_allclose(stored.X, whole.X, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "t.h5ad").X, stored.X)
    assert (screen.X != before.X).nnz == 0
    assert screen.obs.equals(before.obs)
    assert set(screen.uns) == set(before.uns)
    with pytest.raises(FileError, match="exists already"):
        cd.pp.effect_table(screen, out=tmp_path / "t.h5ad")
    cd.pp.effect_table(screen, out=tmp_path / "t.h5ad", overwrite=True)


def test_many_conditions_are_measured_in_several_passes(
    screen: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celldit.calibration.rates import table as measuring

    whole = cd.pp.effect_table(screen)
    monkeypatch.setattr(measuring, "MOST_NUMBERS", 2 * screen.n_vars)
    np.testing.assert_array_equal(cd.pp.effect_table(screen).X, whole.X)


def test_refused_tables(screen: ad.AnnData) -> None:
    with pytest.raises(InputError, match="lower min_cells"):
        cd.pp.effect_table(screen, min_cells=10_000)
    with pytest.raises(UnknownNameError, match="direction"):
        cd.pp.effect_table(screen, direction="sideways")  # type: ignore[arg-type]


def measured(screen: ad.AnnData, name: str) -> np.ndarray:
    table = cd.pp.effect_table(screen[1::2].copy())
    return np.asarray(table.X[list(table.obs["perturbation"]).index(name)])


def test_what_only_the_table_has_is_predicted(
    screen: ad.AnnData, model: CellDiT, others: ad.AnnData, train_tiny: Any
) -> None:
    effects = model.predict_effects(["E", "F"])
    assert set(effects["extrapolation"]) == {"known elsewhere"}
    alone = train_tiny(others, max_epochs=0)
    with pytest.raises(UnknownNameError):
        alone.predict_effects(["E"])
    for name in "EF":
        truth = measured(screen, name)
        own = effects[effects["perturbation"] == name]["log_fold_change"].to_numpy()
        assert ((own - truth) ** 2).sum() < 0.5 * (truth**2).sum()


def test_what_only_the_table_has_may_be_measured_next_and_asked_of_every_tool(
    others: ad.AnnData, model: CellDiT
) -> None:
    known = others.copy()
    batch = cd.tl.next_perturbations(known, model)
    assert set(batch["perturbation"]) == {"E", "F"}
    named = cd.tl.next_perturbations(known, model, ["F"])
    assert list(named["perturbation"]) == ["F"]
    assert set(cd.tl.effects(known, model, ["E"])["extrapolation"]) == {"known elsewhere"}


def test_where_effects_are_from_goes_with_predictions(model: CellDiT, tmp_path: Path) -> None:
    predicted = model.predict(perturbations=["E", "A"], out=tmp_path / "p.h5ad")
    said = predicted.uns["celldit"]["effects"]["lab two"]
    assert said["licence"] == "CC BY 4.0"
    assert said["reliability"] > 0.9
    assert ad.read_h5ad(tmp_path / "p.h5ad").uns["celldit"]["effects"]["lab two"]["n_shared"] == 4
    kinds = predicted.obs.groupby("perturbation", observed=True)["extrapolation"].first()
    assert dict(kinds) == {"E": "known elsewhere", "A": "seen"}


def test_a_saved_model_keeps_its_tables(model: CellDiT, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again = CellDiT.load(tmp_path / "m")
    for name in ("E", "A"):
        before, after = (m.predict_effects([name]) for m in (model, again))
        pd.testing.assert_frame_equal(after, before, check_exact=True)
    assert again.trained.elsewhere.provenance == model.trained.elsewhere.provenance


def test_fine_tuning_keeps_tables(
    model: CellDiT, others: ad.AnnData, table: ad.AnnData, train_tiny: Any
) -> None:
    own = train_tiny(others, max_epochs=0, effects=table)
    tuned = own.fine_tune(others.copy(), max_epochs=0, enable_progress_bar=False)
    assert set(tuned.predict_effects(["E"])["extrapolation"]) == {"known elsewhere"}


def test_controls_alone_predict_from_a_table(
    screen: ad.AnnData, others: ad.AnnData, table: ad.AnnData, train_tiny: Any, tmp_path: Path
) -> None:
    controls = others[(others.obs["perturbation"] == "control").to_numpy()].copy()
    with pytest.warns(UserWarning, match="shares no perturbation"):
        model = train_tiny(controls, max_epochs=0, effects=table)
    effects = model.predict_effects(["A", "E"])
    assert set(effects["extrapolation"]) == {"known elsewhere"}
    for name in "AE":
        own, truth = effects[effects["perturbation"] == name], measured(screen, name)
        assert ((own["log_fold_change"] - truth) ** 2).sum() < 0.6 * (truth**2).sum()
        assert (own["sd"] > 0).all()
    predicted = model.predict(perturbations=["E"])
    assert set(predicted.obs["perturbation"]) == {"E"}
    model.save(tmp_path / "m")
    np.testing.assert_allclose(
        CellDiT.load(tmp_path / "m").predict_effects(["E"])["sd"],
        model.predict_effects(["E"])["sd"],
        rtol=1e-4,
    )


def test_a_model_of_controls_alone_keeps_its_table_when_it_goes_on(
    others: ad.AnnData, table: ad.AnnData, train_tiny: Any
) -> None:
    controls = others[(others.obs["perturbation"] == "control").to_numpy()].copy()
    with pytest.warns(UserWarning, match="shares no perturbation"):
        model = train_tiny(controls, max_epochs=0, effects=table)
    model.fine_tune(others.copy(), max_epochs=0, enable_progress_bar=False)
    effects = model.predict_effects(["A", "E"])
    kinds = dict(zip(effects["perturbation"], effects["extrapolation"], strict=True))
    assert kinds == {"A": "seen", "E": "known elsewhere"}


def test_the_control_stays_where_it_is(model: CellDiT) -> None:
    effects = model.predict_effects(["control"])
    assert (effects["log_fold_change"] == 0).all()
