"""Counterfactuals: edits of observed cells, repeatable, whatever they are asked together with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit import CellDiT
from celldit.data.fields import Fields
from celldit.errors import InputError, UnknownNameError
from celldit.training import TrainingConfig


def dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def assert_same(one: ad.AnnData, two: ad.AnnData) -> None:
    """The same bytes everywhere."""
    # A file turns text into categories.
    pd.testing.assert_frame_equal(one.obs.astype(str), two.obs.astype(str))
    assert list(one.var_names) == list(two.var_names)
    for a, b in ((one.X, two.X), *((one.layers[k], two.layers[k]) for k in ("counts", "mean"))):
        assert dense(a).tobytes() == dense(b).tobytes()
    assert one.obsm["X_celldit"].tobytes() == two.obsm["X_celldit"].tobytes()


def controls_of(adata: ad.AnnData) -> ad.AnnData:
    return adata[adata.obs["perturbation"] == "control"].copy()


@pytest.fixture(scope="module")
def predicted(flowing_model: CellDiT) -> ad.AnnData:
    return flowing_model.predict(perturbations=["A", "B+A", "B+C"])


def test_the_fields_of_a_prediction(
    predicted: ad.AnnData, flowing_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    controls = controls_of(tiny_screen)
    n = controls.n_obs
    assert predicted.shape == (3 * n, tiny_screen.n_vars)
    assert list(predicted.var_names) == list(tiny_screen.var_names)
    assert predicted.obs_names.is_unique
    obs = predicted.obs
    assert list(obs["perturbation"]) == ["A"] * n + ["A+B"] * n + ["B+C"] * n
    assert list(obs["control_cell"]) == list(controls.obs_names) * 3
    assert list(obs["donor"]) == list(controls.obs["donor"]) * 3
    kinds = ["seen"] * 2 * n + ["new combination"] * n
    assert list(obs["extrapolation"]) == kinds
    totals = dense(controls.X).sum(axis=1)
    np.testing.assert_array_equal(obs["size_factor"], np.tile(totals, 3))
    assert predicted.obsm["X_celldit"].shape == (3 * n, 6)
    assert predicted.obsm["X_celldit"].dtype == np.float32
    counts = predicted.layers["counts"]
    assert np.issubdtype(counts.dtype, np.integer)
    assert dense(counts).min() >= 0
    made_by = predicted.uns["celldit"]["made_by"]
    assert made_by["model"] == flowing_model.trained.model_id
    for name, value in (("sampler", "transport"), ("solver", "heun"), ("n_steps", 8), ("seed", 0)):
        assert made_by[name] == value
    assert made_by["guidance"] == 1


def test_x_is_log_expression_of_the_mean(predicted: ad.AnnData) -> None:
    size = predicted.obs["size_factor"].to_numpy()[:, None]
    expected = np.log1p(1e4 * dense(predicted.layers["mean"]) / size)
    np.testing.assert_allclose(dense(predicted.X), expected, rtol=1e-5, atol=1e-6)


def test_counts_scatter_about_the_mean(predicted: ad.AnnData) -> None:
    mean, counts = dense(predicted.layers["mean"]), dense(predicted.layers["counts"])
    assert abs(counts.mean() / mean.mean() - 1) < 0.02
    assert np.corrcoef(mean.ravel(), counts.ravel())[0, 1] > 0.9
    np.testing.assert_allclose(counts.mean(0), mean.mean(0), rtol=0.25, atol=0.2)


def test_a_prediction_reads_as_data(predicted: ad.AnnData) -> None:
    fields = Fields.from_anndata(predicted)
    assert fields.perturbation_key == "perturbation"
    assert fields.counts_layer == "counts"
    assert fields.size_factor_key == "size_factor"
    CellDiT(predicted, "modules")


def test_a_model_reads_its_own_predictions(predicted: ad.AnnData, tiny_model: CellDiT) -> None:
    assert tiny_model.get_latent_representation(predicted).shape == (predicted.n_obs, 6)


def test_predictions_survive_a_file(predicted: ad.AnnData, tmp_path: Path) -> None:
    predicted.copy().write_h5ad(tmp_path / "p.h5ad")
    again = ad.read_h5ad(tmp_path / "p.h5ad")
    assert_same(again, predicted)
    assert Fields.from_anndata(again) == Fields.from_anndata(predicted)
    assert again.uns["celldit"]["made_by"]["model"] == predicted.uns["celldit"]["made_by"]["model"]


def test_the_same_call_gives_the_same_bytes(predicted: ad.AnnData, flowing_model: CellDiT) -> None:
    asked = ["A", "B+A", "B+C"]
    assert_same(flowing_model.predict(perturbations=asked), predicted)
    other = flowing_model.predict(perturbations=asked, seed=1)
    assert (dense(other.layers["counts"]) != dense(predicted.layers["counts"])).mean() > 0.05
    np.testing.assert_array_equal(dense(other.layers["mean"]), dense(predicted.layers["mean"]))


@pytest.mark.parametrize(("batch_size", "n_cells"), [(1, 12), (37, 480), (100_000, 480)])
def test_batches_do_not_matter(
    flowing_model: CellDiT, tiny_screen: ad.AnnData, batch_size: int, n_cells: int
) -> None:
    cells, asked = tiny_screen[:n_cells], ["A", "B+C"]
    one = flowing_model.predict(cells, perturbations=asked)
    two = flowing_model.predict(cells, perturbations=asked, batch_size=batch_size)
    np.testing.assert_allclose(one.obsm["X_celldit"], two.obsm["X_celldit"], atol=1e-4)
    equal = dense(one.layers["counts"]) == dense(two.layers["counts"])
    assert equal.mean() >= 0.9999


def test_the_control_gives_the_cells_back(flowing_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    observed = dense(controls_of(tiny_screen).X)
    again = flowing_model.predict(perturbations=["control"])
    assert np.array_equal(dense(again.layers["counts"]), observed)
    np.testing.assert_allclose(dense(again.layers["mean"]), observed, rtol=1e-6)
    latent = flowing_model.get_latent_representation(controls_of(tiny_screen))
    np.testing.assert_allclose(again.obsm["X_celldit"], latent, atol=1e-6)


def test_predictions_go_the_way_of_the_data(
    train_tiny: Callable[..., CellDiT], tiny_screen: ad.AnnData
) -> None:
    model = train_tiny(tiny_screen, max_epochs=0)
    expression = np.log1p(1e4 * dense(tiny_screen.X) / dense(tiny_screen.X).sum(1, keepdims=True))
    label = tiny_screen.obs["perturbation"].to_numpy()
    reference = expression[label == "control"].mean(0)
    for name in ("A", "B", "A+B"):
        shift = dense(model.predict(perturbations=[name]).X).mean(0) - reference
        truth = expression[label == name].mean(0) - reference
        assert np.corrcoef(shift, truth)[0, 1] > 0.6


def test_the_flow_and_trust_matter(tiny_model: CellDiT, predicted: ad.AnnData) -> None:
    silent = tiny_model.predict(perturbations=["A", "B+A", "B+C"])
    assert np.abs(silent.obsm["X_celldit"] - predicted.obsm["X_celldit"]).max() > 0.05


def test_own_cells_equal_training_controls(
    predicted: ad.AnnData, flowing_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    asked = ["A", "A+B", "B+C"]
    for cells in (tiny_screen, controls_of(tiny_screen)):
        assert_same(flowing_model.predict(cells, perturbations=asked), predicted)


def test_genes_in_another_order(flowing_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    order = np.random.default_rng(0).permutation(tiny_screen.n_vars)
    more = ad.AnnData(
        sparse.csr_matrix((tiny_screen.n_obs, 3)),
        obs=tiny_screen.obs[[]],
        var=pd.DataFrame(index=["x1", "x2", "x3"]),
    )
    wider = ad.concat([more, tiny_screen[:, order]], axis=1)
    wider.obs = tiny_screen.obs
    one = flowing_model.predict(tiny_screen, perturbations=["A"])
    for other in (tiny_screen[:, order].copy(), wider):
        assert_same(flowing_model.predict(other, perturbations=["A"]), one)


def test_cells_without_perturbation_column_are_controls(
    flowing_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    plain = tiny_screen[:20].copy()
    del plain.obs["perturbation"]
    assert flowing_model.predict(plain, perturbations=["A"]).n_obs == 20


def test_a_context_never_seen(flowing_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    strange = controls_of(tiny_screen)[:30].copy()
    strange.obs["donor"] = "d9"
    predicted = flowing_model.predict(strange, perturbations=["A", "B+C"])
    assert list(predicted.obs["extrapolation"]) == ["new context"] * 30 + ["new combination"] * 30
    assert set(predicted.obs["donor"]) == {"d9"}
    assert np.isfinite(predicted.obsm["X_celldit"]).all()
    before = flowing_model.get_latent_representation(strange)
    assert np.abs(predicted.obsm["X_celldit"][:30] - before).max() > 0.05


def test_a_new_context_does_not_change_the_others(
    tiny_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    controls = controls_of(tiny_screen)
    controls.obs["donor"] = controls.obs["donor"].astype(str)
    mixed = controls.copy()
    mixed.obs.iloc[100:, mixed.obs.columns.get_loc("donor")] = "d9"
    one, two = (tiny_model.predict(a, perturbations=["A"]) for a in (controls, mixed))
    np.testing.assert_allclose(two.obsm["X_celldit"][:100], one.obsm["X_celldit"][:100], atol=1e-5)


def test_a_context_never_seen_after_training_in_one(
    train_tiny: Callable[..., CellDiT], tiny_screen: ad.AnnData
) -> None:
    one = tiny_screen[tiny_screen.obs["donor"] == "d1"].copy()
    other = controls_of(tiny_screen[tiny_screen.obs["donor"] == "d2"])
    model = train_tiny(one, max_epochs=0)
    assert np.isfinite(model.predict(other, perturbations=["A"]).obsm["X_celldit"]).all()


def test_the_users_data_stay_as_they_are(flowing_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    before = tiny_screen.copy()
    flowing_model.predict(tiny_screen, perturbations=["A"])
    flowing_model.get_latent_representation(tiny_screen)
    flowing_model.generate(5, like=tiny_screen)
    pd.testing.assert_frame_equal(tiny_screen.obs, before.obs)
    pd.testing.assert_frame_equal(tiny_screen.var, before.var)
    assert (tiny_screen.X != before.X).nnz == 0
    assert tiny_screen.uns == before.uns
    assert not tiny_screen.obsm
    assert not tiny_screen.layers


def test_missing_genes_are_counted_and_named(
    flowing_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    keep = ~tiny_screen.var_names.isin(["gene3", "gene7"])
    with pytest.raises(InputError, match=r"2 of the 40 genes needed .*'gene3', 'gene7'"):
        flowing_model.predict(tiny_screen[:, keep], perturbations=["A"])


@pytest.mark.parametrize("asked", ["AA", ["A", "Aa"], "A+AB"])
def test_unknown_perturbations(flowing_model: CellDiT, asked: object) -> None:
    with pytest.raises(UnknownNameError, match="was not in training and has no features"):
        flowing_model.predict(perturbations=asked)


def test_the_closest_perturbation_is_named(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(120, 12, ("control", "STAT1", "IRF1"), ("d1", "d2"))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    model = train_tiny(adata, max_epochs=0)
    with pytest.raises(UnknownNameError, match=r"'STAT2' was not .* Did you mean 'STAT1'\?"):
        model.predict(perturbations=["STAT2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturbations": []}, "No perturbation was asked for"),
        ({"n_steps": 0}, "n_steps=0"),
        ({"n_steps": 2.5}, r"n_steps=2\.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"guidance": -1.0}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": 2.0}, "trained with conditions withheld"),
        ({"dose": 1.0}, "without dose_key"),
        ({"time": 1.0}, "without time_key"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_arguments_that_cannot_be_used(
    flowing_model: CellDiT, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        flowing_model.predict(**{"perturbations": ["A"], **options})


@pytest.mark.parametrize("options", [{"solver": "hein"}, {"sampler": "transprot"}])
def test_names_that_are_not_known(flowing_model: CellDiT, options: dict[str, Any]) -> None:
    with pytest.raises((UnknownNameError, InputError)) as caught:
        flowing_model.predict(perturbations=["A"], **options)
    assert "heun" in str(caught.value) or "transport" in str(caught.value)


def test_there_must_be_controls(flowing_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    perturbed = tiny_screen[tiny_screen.obs["perturbation"] != "control"]
    with pytest.raises(InputError, match="No cell is labelled 'control'"):
        flowing_model.predict(perturbed, perturbations=["A"])


def test_solvers_agree(flowing_model: CellDiT) -> None:
    autoencoder = flowing_model.trained.autoencoder
    size_F = autoencoder.scale.repeat_interleave(autoencoder.token_dim).numpy()
    euler, heun, exact = (
        flowing_model.predict(perturbations=["A"], solver=solver, n_steps=40).obsm["X_celldit"]
        for solver in ("euler", "heun", "rk4")
    )
    np.testing.assert_allclose(euler / size_F, exact / size_F, atol=0.05)
    np.testing.assert_allclose(heun / size_F, exact / size_F, atol=0.01)


def test_doses_and_times(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(240, 12, ("control", "A", "B", "A+B"), ("d1",))
    label = adata.obs["perturbation"].to_numpy()
    adata.obs["dose"] = np.where(label == "A+B", "1+2", np.where(label == "control", "0", "1"))
    adata.obs["day"] = np.where(np.arange(240) < 120, 1.0, 2.0)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", dose_key="dose", time_key="day")
    model = train_tiny(adata)
    predicted = model.predict(perturbations=["A"], dose=1.0)
    assert set(predicted.obs["day"]) == {1.0, 2.0}
    assert set(predicted.obs["dose"].astype(float)) == {1.0}
    assert not predicted.obs["beyond_range"].any()
    with pytest.warns(UserWarning, match="Dose 4 of B lies outside the trained range 1 to 2;"):
        between = model.predict(perturbations=["A+B"], dose="1+4", time=1.5)
    assert between.obs["beyond_range"].all()
    assert set(between.obs["day"]) == {1.5}
    assert set(between.obs["dose"].astype(str)) == {"1+4"}
    assert np.isfinite(between.obsm["X_celldit"]).all()
    with pytest.raises(InputError, match="say at which dose 'A' is given"):
        model.predict(perturbations=["A"])
    with pytest.raises(InputError, match="2 numbers for 1 perturbations"):
        model.predict(perturbations=["A"], dose="1+2")
    with pytest.warns(UserWarning, match="Time 9 lies outside the trained range 1 to 2"):
        model.predict(perturbations=["A"], dose=1.0, time=9.0)
    with pytest.warns(UserWarning, match="Time 9"):
        effects = model.predict_effects(["A"], dose=1.0, time=9.0)
    assert effects["beyond_range"].all()
    for dose in ("much", -1, float("nan"), True):
        with pytest.raises(InputError, match="not a number of at least 0"):
            model.predict(perturbations=["A"], dose=dose)
    for when in ("noon", float("inf"), True):
        with pytest.raises(InputError, match="is not a finite number"):
            model.predict(perturbations=["A"], dose=1.0, time=when)
    assert model.generate(10, perturbation="A", dose=1.0, time=2.0).n_obs == 10
    way = model.interpolate(start="control", end="A", dose=1.0, shares=[1])
    np.testing.assert_array_equal(way.X.toarray(), predicted.X.toarray())
    with pytest.raises(InputError, match="say at which dose 'A' is given"):
        model.interpolate(start="control", end="A")


def test_counts_of_a_sparse_panel_change_by_the_effect() -> None:
    """Of 40 genes with 1.5 counts each: a latent as wide as the panel would double the effect."""
    rng = np.random.default_rng(0)
    base_G = rng.gamma(0.7, 1, 40) + 0.05
    effect_G = np.where(rng.random(40) < 0.4, rng.normal(0.4, 0.6, 40), 0.0)
    programme_G = rng.normal(0, 0.5, 40)
    counts = []
    for change_G in (np.zeros(40), effect_G):
        rate_NG = base_G * np.exp(change_G + rng.normal(size=(500, 1)) * programme_G)
        counts.append(rng.poisson(60 / base_G.sum() * rate_NG * rng.gamma(3, 1 / 3, (500, 40))))
    adata = ad.AnnData(
        sparse.csr_matrix(np.concatenate(counts).astype(np.float32)),
        obs=pd.DataFrame({"perturbation": np.repeat(["control", "X"], 500)}).rename("c{}".format),
    )
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control")
    model = CellDiT(adata, "modules")
    model.train(0, config=TrainingConfig(new_cells=False), enable_progress_bar=False)
    made = model.predict(perturbations=["X"]).layers["counts"].toarray().mean(0)
    control, measured = (c.mean(0) for c in counts)
    change, truth = np.log(made / control), np.log(measured / control)
    assert (change @ truth) / (truth @ truth) == pytest.approx(1, abs=0.25)


def test_a_forgotten_perturbation_is_not_all_of_them(tiny_model):
    for ask in (tiny_model.predict, tiny_model.predict_effects):
        with pytest.raises(InputError, match="perturbations=None must be a name"):
            ask(perturbations=None)
