"""Counterfactual cells end up where training says that mean log expression goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from celldit import CellDiT
from celldit.calibration.means import SEEN_WEIGHTS, MeanCalibration, ResidualEffect
from celldit.calibration.own_gene.on_target import OnTarget
from celldit.calibration.reference_controls import Change
from celldit.calibration.responses import LOG_FACTORS, Responses
from celldit.conditions.extrapolation import Extrapolation
from celldit.effects.residual_genes import ResidualGenes
from celldit.effects.tables.elsewhere import Elsewhere
from celldit.latent import LatentConfig

MEASURED = Responses({None: np.zeros((len(LOG_FACTORS), 1), dtype=np.float16)})
NOTHING = Elsewhere().further((), [f"gene{g}" for g in range(40)])


def mean_log(cells: ad.AnnData) -> np.ndarray:
    """Mean log expression of predicted or measured cells, each by its own size."""
    counts = cells.layers.get("counts", cells.X)
    size = cells.obs["size_factor"] if "size_factor" in cells.obs else np.ravel(counts.sum(1))
    return np.log1p(counts.toarray() * (1e4 / np.asarray(size))[:, None]).mean(0)


@pytest.fixture(scope="module")
def shallow(simulate_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Few genes and few counts: there decoding alone loses much of an effect."""
    adata = simulate_screen(n_cells=3_000, n_genes=40, labels=("control", "A", "B", "C", "D"))
    rng = np.random.default_rng(1)
    adata.X.data = rng.binomial(adata.X.data.astype(int), 0.3).astype(np.float32)
    adata.X.eliminate_zeros()
    adata = adata[np.ravel(adata.X.sum(1)) > 3].copy()
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    return adata


@pytest.fixture(scope="module")
def model(shallow: ad.AnnData) -> CellDiT:
    """Trained without (A, d1), on the effect prior alone."""
    held_out = (shallow.obs["perturbation"] == "A") & (shallow.obs["donor"] == "d1")
    train = shallow[~held_out.to_numpy()]
    model = CellDiT(train, "modules", LatentConfig(n_dims=24, token_dim=4))
    model.train(0, enable_progress_bar=False)
    return model


def test_predictions_of_a_new_condition_get_nearer(model: CellDiT, shallow: ad.AnnData) -> None:
    own = shallow[shallow.obs["donor"] == "d1"]
    control = own[own.obs["perturbation"] == "control"].copy()
    measured = mean_log(own[own.obs["perturbation"] == "A"]) - mean_log(control)
    bare = replace(model.trained, mean_calibration=MeanCalibration.none(shallow.n_vars))
    error = {}
    for name, trained in (("aim", model.trained), ("bare", bare)):
        other = CellDiT(shallow, "modules")
        other._trained = trained
        predicted = mean_log(other.predict(control, perturbations=["A"])) - mean_log(control)
        error[name] = ((predicted - measured) ** 2).sum() / (measured**2).sum()
    assert error["aim"] < 0.9 * error["bare"]


def test_a_cell_does_not_depend_on_its_company(model: CellDiT, shallow: ad.AnnData) -> None:
    control = shallow[shallow.obs["perturbation"] == "control"].copy()
    many = model.predict(control, perturbations=["B", "A"])
    few = model.predict(control[:17].copy(), perturbations=["A"])
    same = many[many.obs["perturbation"] == "A"][:17]
    # Draws are by position in a request; expectations are not.
    np.testing.assert_array_equal(same.X.toarray(), few.X.toarray())


def test_controls_are_given_back(model: CellDiT, shallow: ad.AnnData) -> None:
    control = shallow[shallow.obs["perturbation"] == "control"].copy()
    same = model.predict(control, perturbations=["control"])
    assert (same.layers["counts"] != control.X).nnz == 0


def change_of(curve_PG: np.ndarray, shift_F: np.ndarray) -> Change:
    """Cells that answer to a factor as a curve says."""
    n_genes = curve_PG.shape[1]
    return Change(shift_F, np.ones(n_genes), curve_PG, np.zeros(n_genes))


def test_the_offset_reaches_the_aim(model: CellDiT) -> None:
    trained, mean_calibration = model.trained, model.trained.mean_calibration
    own = trained.reference_controls.of(("d1", None))
    shift_F = np.full(own.z_NKD[0].numel(), 0.3)
    change = own.change(own.z_NKD + 0.3)
    kind = Extrapolation.CONTEXT
    further_G = np.linspace(-0.2, 0.2, len(trained.genes))
    new_genes = np.array([3])
    residual = ResidualEffect(further_G, new_genes[:0], NOTHING)
    offset_G = mean_calibration.offset(kind, change, shift_F, residual)
    with_new = replace(mean_calibration, on_target=OnTarget(-0.5, 0.1))
    with_new_G = with_new.offset(kind, change, shift_F, residual._replace(new_genes=new_genes))
    assert with_new_G[3] == pytest.approx(offset_G[3] - 0.5)
    np.testing.assert_array_equal(np.delete(with_new_G, 3), np.delete(offset_G, 3))
    a, b, c = mean_calibration.weights[kind]
    straight_G = shift_F @ mean_calibration.slopes_FG
    wanted_G = a * change.decoded_G + b * straight_G + c * further_G
    got_G, slope_G = change.at(offset_G)
    answering = (slope_G > 0.2) & (np.abs(offset_G) < 1.9)
    assert answering.sum() > 20
    np.testing.assert_allclose(got_G[answering], wanted_G[answering], atol=0.02)


def test_what_was_seen_goes_to_the_mean_of_the_effect_model() -> None:
    curve_PG = np.repeat(LOG_FACTORS[:, None], 3, axis=1)
    line_FG = np.array([[0.5, -0.5, 0.0]], dtype=np.float32)
    calibration = MeanCalibration(
        line_FG, MEASURED, ResidualGenes.none(3), np.zeros(3), weights={None: (1.0, 0.0, 0.0)}
    )
    further = Elsewhere().further((), ["x", "y", "z"])
    residual = ResidualEffect(np.array([0.0, 0.0, 0.7]), np.zeros(0, np.int64), further)
    # Whatever the network makes of it, by the shift and by the curve.
    change = change_of(curve_PG + np.array([3.0, 1.0, 0.1]), np.array([5.0]))
    offset_G = calibration.offset(Extrapolation.SEEN, change, np.array([1.0]), residual)
    np.testing.assert_allclose(change.at(offset_G)[0][1:], [-0.5, 0.7], atol=0.01)
    assert offset_G[0] == -2.0  # as far as any gene is moved
    nothing = calibration.offset(None, change, np.array([1.0]), residual)
    np.testing.assert_allclose(nothing, 0, atol=0.01)


def test_curves_are_read_between_their_points() -> None:
    change = change_of(np.stack([LOG_FACTORS, 2 * LOG_FACTORS], axis=1), np.zeros(1))
    value_G, slope_G = change.at(np.array([0.1, -20.0]))
    np.testing.assert_allclose(value_G, [0.1, -16.0], atol=1e-3)
    np.testing.assert_allclose(slope_G, [1.0, 2.0], atol=1e-3)


def test_another_time_of_a_context_stands_in_before_other_contexts() -> None:
    curve_PG = LOG_FACTORS[:, None].astype(np.float16)
    curves = {("a", 1.0): curve_PG, ("a", 5.0): 2 * curve_PG, None: 0 * curve_PG}
    responses = Responses(curves)
    np.testing.assert_array_equal(responses.curve(("a", 4.0)), curves["a", 5.0])
    assert responses.knows(("a", 4.0))
    assert not responses.knows(("b", 1.0))
    assert not responses.curve(("b", 1.0)).any()


def test_stand_ins_are_not_followed_far() -> None:
    # A gene that other contexts' controls have none of, and that must change a good deal.
    line_FG = np.ones((1, 2), dtype=np.float32)
    calibration = MeanCalibration(line_FG, MEASURED, ResidualGenes.none(2), np.zeros(2))
    further = Elsewhere().further((), ["x", "y"])
    nothing = ResidualEffect(np.zeros(2), np.zeros(0, np.int64), further)
    change = change_of(0.03 * np.repeat(LOG_FACTORS[:, None], 2, axis=1), np.ones(1))
    arguments = Extrapolation.CONTEXT, change, np.ones(1), nothing
    assert calibration.offset(*arguments).max() > 1
    assert calibration.offset(*arguments, known=False).max() <= 0.5


def test_what_was_never_seen_says_nothing_of_what_was(model: CellDiT) -> None:
    weights = {None: (0.6, 0.5, 1.0), Extrapolation.UNSEEN: (0.0, 0.0, 0.0)}
    mean_calibration = replace(model.trained.mean_calibration, weights=weights)
    for kind in (Extrapolation.COMBINATION, Extrapolation.CONTEXT, None):
        assert mean_calibration._weights_of(kind) == weights[None]
    assert mean_calibration._weights_of(Extrapolation.UNSEEN) == (0.0, 0.0, 0.0)
    assert mean_calibration._weights_of(Extrapolation.SEEN) == SEEN_WEIGHTS


def test_without_perturbations_there_is_none(train_tiny: Callable[..., CellDiT]) -> None:
    adata = ad.AnnData(np.random.default_rng(0).poisson(2.0, (60, 12)).astype(np.float32))
    CellDiT.setup_anndata(adata)
    assert train_tiny(adata).trained.mean_calibration.is_none


def test_what_was_learned_earlier_is_kept() -> None:
    line = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    nothing, on_target = ResidualGenes.none(3), OnTarget(-0.7, 0.2)
    curve = np.stack([LOG_FACTORS, 2 * LOG_FACTORS, 3 * LOG_FACTORS], axis=1).astype(np.float16)
    responses, variance_G = Responses({("a", None): curve, None: curve}), np.array([1.0, 2, 3])
    weights = {None: (0.9, 0.2, 0.8)}
    earlier = MeanCalibration(line, responses, nothing, variance_G, on_target, weights)
    tuned = MeanCalibration.none(2).with_earlier(earlier, np.array([2, 0]))
    assert (tuned.weights, tuned.on_target) == (earlier.weights, on_target)
    np.testing.assert_array_equal(tuned.slopes_FG, [[3, 1]])
    np.testing.assert_array_equal(tuned.responses.curves["a", None], curve[:, [2, 0]])
    np.testing.assert_array_equal(tuned.variance_G, [3, 1])
    responses = Responses({("b", None): curve, None: 0 * curve})
    weights = {None: (0.5, 0.5, 1.0)}
    own = MeanCalibration(2 * line, responses, nothing, variance_G, OnTarget(), weights)
    both = own.with_earlier(earlier, np.arange(3))
    assert both.on_target == on_target
    tried = replace(earlier, weights={**earlier.weights, Extrapolation.COMBINATION: (0.8, 0.2, 1)})
    assert own.with_earlier(tried, np.arange(3)).weights == {
        **own.weights,
        Extrapolation.COMBINATION: (0.8, 0.2, 1),
    }
    assert list(both.responses.curves) == [("a", None), None, ("b", None)]
    assert (both.responses.curves[None] == 0).all()
    assert both.weights == own.weights


def test_it_is_saved(model: CellDiT, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded, mean_calibration = (
        CellDiT.load(tmp_path / "model").trained.mean_calibration,
        model.trained.mean_calibration,
    )
    assert loaded.weights == mean_calibration.weights
    assert list(loaded.responses.curves) == list(mean_calibration.responses.curves)
    assert loaded.residual_genes.conditions == mean_calibration.residual_genes.conditions
    assert loaded.on_target == mean_calibration.on_target
    for name, array in mean_calibration.arrays().items():
        np.testing.assert_array_equal(loaded.arrays()[name], array)


def test_arrays_that_do_not_fit_are_refused(model: CellDiT) -> None:
    mean_calibration, n = model.trained.mean_calibration, len(model.trained.genes)
    config, arrays = mean_calibration.to_config(), mean_calibration.arrays()
    assert MeanCalibration.from_config({}, {}, n).is_none
    with pytest.raises(ValueError, match="readout"):
        MeanCalibration.from_config(config, {"readout": arrays["readout"]}, n + 1)
    with pytest.raises(ValueError, match="responses"):
        MeanCalibration.from_config(config, {**arrays, "curves": arrays["curves"][1:]}, n)
    with pytest.raises(ValueError, match="variances"):
        MeanCalibration.from_config(config, {**arrays, "variance": arrays["variance"][1:]}, n)
