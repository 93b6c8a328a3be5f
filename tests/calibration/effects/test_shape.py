"""The distribution of true log fold changes about predicted ones is what it says it is."""

from __future__ import annotations

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import celldit as cd
from celldit.calibration.effects import EffectCalibration, ErrorShape
from celldit.calibration.effects.fit import control_scatter
from celldit.calibration.effects.fit_shape import fit_seen_shape, fit_shape
from celldit.calibration.effects.intervals import Compared
from celldit.calibration.effects.shape import EFFECTS, SCALES
from celldit.calibration.rates.fold_change import PSEUDO_RATE
from celldit.calibration.rates.means import MeanRates
from celldit.conditions.extrapolation import Extrapolation
from celldit.training import TrainingConfig

MEAN_G, SD_G = np.array([0.0, 0.4, -2.0]), np.array([0.2, 0.4, 0.5])
MIXED = ErrorShape(-1.0, 1.5, 0.05, (0.1, 0.2, 0.3, 0.2, 0.1, 0.1))


def test_by_default_it_is_the_normal_one() -> None:
    spread = ErrorShape().of(MEAN_G, SD_G)
    np.testing.assert_allclose(spread.sd_G, SD_G)
    np.testing.assert_allclose(spread.false_sign_G, stats.norm.sf(np.abs(MEAN_G) / SD_G))
    np.testing.assert_allclose(spread.sign_G, 1 - spread.false_sign_G)
    np.testing.assert_allclose(spread.quantile(0.95), MEAN_G + 1.6449 * SD_G, atol=1e-4)
    below, above = stats.norm.cdf(-0.3, MEAN_G, SD_G), stats.norm.sf(0.3, MEAN_G, SD_G)
    np.testing.assert_allclose(spread.exceeds(0.3), below + above)


def test_probabilities_agree_with_draws() -> None:
    rng, n = np.random.default_rng(0), 400_000
    spread = MIXED.of(MEAN_G, SD_G)
    scale_N3 = SD_G * SCALES[rng.choice(len(SCALES), n, p=MIXED.shares)][:, None]
    responds_N3 = rng.random((n, 3)) < spread.responds_G
    drawn_N3 = np.where(
        responds_N3, MEAN_G + scale_N3 * rng.normal(size=(n, 3)), 0.05 * rng.normal(size=(n, 3))
    )
    np.testing.assert_allclose(spread.sd_G, np.sqrt(((drawn_N3 - MEAN_G) ** 2).mean(0)), rtol=0.01)
    np.testing.assert_allclose(spread.exceeds(0.3), (np.abs(drawn_N3) > 0.3).mean(0), atol=4e-3)
    np.testing.assert_allclose(spread.cdf(0.1), (drawn_N3 < 0.1).mean(0), atol=4e-3)
    right_N3 = responds_N3 & (np.sign(drawn_N3) == np.sign(MEAN_G))
    np.testing.assert_allclose(spread.false_sign_G[1:], 1 - right_N3.mean(0)[1:], atol=4e-3)
    for q in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(spread.cdf(spread.quantile(q)), q, atol=1e-6)
    noisy_N3 = drawn_N3 + 0.2 * rng.normal(size=(n, 3))
    np.testing.assert_allclose(spread.cdf(0.1, 0.04), (noisy_N3 < 0.1).mean(0), atol=4e-3)


def world(n_conditions: int, share: float, seed: int = 0) -> tuple[list[Compared], np.ndarray]:
    """Comparisons in which a share of genes responds, predicted with a normal error of sd .3."""
    rng, n_genes = np.random.default_rng(seed), 400
    found, truth = [], []
    for _ in range(n_conditions):
        responds_G = rng.random(n_genes) < share
        predicted_G = np.where(responds_G, rng.normal(0, 1.2, n_genes), rng.normal(0, 0.1, n_genes))
        true_G = np.where(responds_G, predicted_G + 0.3 * rng.normal(size=n_genes), 0.0)
        noise_G = np.full(n_genes, 0.01)
        measured_G = true_G + 0.1 * rng.normal(size=n_genes)
        found.append(
            Compared(
                Extrapolation.CONTEXT, predicted_G, predicted_G, measured_G, np.full(n_genes, 0.09),
                noise_G, measured_G**2 / noise_G,
            )
        )  # fmt: skip
        truth.append(true_G)
    return found, np.array(truth)


def test_few_that_are_called_have_the_wrong_sign_and_those_that_respond_are_called() -> None:
    compared, _ = world(20, 0.15)
    shape = fit_shape(EffectCalibration(), compared)
    new, truth_CG = world(20, 0.15, seed=1)
    predicted_CG = np.array([one.calibrated_G for one in new])
    spread = shape.of(predicted_CG.ravel(), np.full(predicted_CG.size, 0.3))
    called, truth = spread.false_sign_G < 0.05, truth_CG.ravel()
    wrong = np.sign(truth) != np.sign(predicted_CG.ravel())
    assert called.sum() > 0.4 * (truth != 0).sum()
    assert wrong[called].mean() < 0.05
    assert spread.false_sign_G[called].mean() == pytest.approx(wrong[called].mean(), abs=0.02)
    # Intervals are sharp for the many that do not respond, and wide for those that do.
    inside = (spread.quantile(0.05) < truth) & (truth < spread.quantile(0.95))
    assert inside[truth == 0].mean() > 0.9
    assert 0.85 < inside[called].mean() < 0.99
    assert np.median(spread.sd_G[truth == 0]) < 0.2
    assert np.median(spread.sd_G[called]) == pytest.approx(0.3, abs=0.1)


def test_where_nothing_responds_nothing_is_called() -> None:
    compared, _ = world(20, 0.0)
    shape = fit_shape(EffectCalibration(), compared)
    new, _ = world(20, 0.0, seed=1)
    predicted_G = np.concatenate([one.calibrated_G for one in new])
    assert (shape.of(predicted_G, np.full(len(predicted_G), 0.3)).false_sign_G > 0.05).all()


def test_which_genes_respond_is_told_by_measurements_of_seen_conditions() -> None:
    """The closed form of two groups, and the share of genes that are in the second."""
    compared, _ = world(20, 0.15)
    shape = fit_seen_shape(compared)
    assert 0.1 < shape.responding < 0.25
    assert shape.null_sd < 0.05
    # Without any noise nearly all that is not narrow responds; with much of it as many as usual.
    means_G, sds_G = np.array([0.0, 1.0]), np.full(2, 0.3)
    sure, unsure = (shape.of(means_G, sds_G, np.full(2, v)).responds_G for v in (1e-4, 1e4))
    np.testing.assert_allclose(sure, [0, 1], atol=0.02)
    np.testing.assert_allclose(unsure, shape.responding, atol=1e-3)
    own = np.array(shape.effects) @ stats.norm.pdf(1.0, 0, np.sqrt(EFFECTS**2 + 0.04))
    none = stats.norm.pdf(1.0, 0, np.hypot(shape.null_sd, 0.2))
    odds = shape.responding / (1 - shape.responding) * own / none
    found = shape.of(means_G, sds_G, np.full(2, 0.04)).responds_G[1]
    assert found / (1 - found) == pytest.approx(odds)
    again = ErrorShape.from_config(json.loads(json.dumps(shape.to_config())))
    assert again == shape
    for bad in ({"responding": 2.0}, {"effects": [1.0]}, {"effects": [0.5] * 5}):
        with pytest.raises(ValueError, match="no distribution"):
            ErrorShape.from_config({**shape.to_config(), **bad})


def test_too_few_comparisons_leave_the_normal_one() -> None:
    assert fit_shape(EffectCalibration(), []) == ErrorShape()
    assert fit_seen_shape([]) == ErrorShape()


def test_through_json() -> None:
    again = ErrorShape.from_config(json.loads(json.dumps(MIXED.to_config())))
    assert again == MIXED
    assert ErrorShape.from_config(ErrorShape().to_config()) == ErrorShape()
    good = MIXED.to_config()
    for bad in ({"null_sd": -1}, {"shares": [1.0]}, {"shares": [0.5] * 6}, {"slope": float("nan")}):
        with pytest.raises(ValueError, match="no distribution"):
            ErrorShape.from_config({**good, **bad})


def test_controls_of_seen_conditions_are_not_known_without_error() -> None:
    """Poisson counts: the variance of the log mean of n cells is 1 / (n rate), u being 1."""
    rates_G = np.array([0.5, 4.0, 100.0])
    own = EffectCalibration(constant=0.01, n_responding=40)
    whole = replace(own, by_kind={Extrapolation.SEEN: own}, one_count=1.0)
    asked = np.zeros(3), np.zeros(3)

    def sd(kind: Extrapolation, n: int) -> np.ndarray:
        return whole.spread(*asked, kind, control_rate_G=rates_G, n_controls=n).sd_G

    np.testing.assert_allclose(sd(Extrapolation.CONTEXT, 50), 0.1)
    added_G = (rates_G + 1 / 50) / 50 / (rates_G + PSEUDO_RATE) ** 2
    np.testing.assert_allclose(sd(Extrapolation.SEEN, 50), np.sqrt(0.01 + added_G))
    assert (sd(Extrapolation.SEEN, 500) < sd(Extrapolation.SEEN, 50)).all()


def test_scatter_of_controls_is_found() -> None:
    rng, n = np.random.default_rng(0), 20_000
    mean_G, phi_G = np.array([2.0, 10.0]), np.array([0.5, 0.1])
    rate_NG = rng.poisson(mean_G * rng.gamma(1 / phi_G, phi_G, (n, 2)))
    mean, variance = rate_NG.mean(0), rate_NG.var(0) / n
    found_G, one = control_scatter([(MeanRates(mean + PSEUDO_RATE, variance, 1 / n), n)])
    assert one == pytest.approx(1.0)
    np.testing.assert_allclose(found_G, phi_G, rtol=0.1)
    assert control_scatter([]) == (0.0, 0.0)


def test_agreement_with_its_own_measurement_is_no_evidence_of_a_response() -> None:
    # Fifty cells a condition and small effects: predictions follow the measurement's noise, which
    # once was taken for agreement, and a third of what was called had the wrong sign.
    norman = cd.datasets.norman()
    half = np.random.default_rng(0).random(norman.n_obs) < 0.5
    wrong = [*wrong_signs(norman, half), *wrong_signs(norman, ~half)]
    assert len(wrong) > 10
    assert np.mean(wrong) < 0.05


def wrong_signs(cells: ad.AnnData, half: np.ndarray) -> list[bool]:
    """Of the genes called in one half of the cells, whether the other half moved otherwise."""
    train, other = cells[half].copy(), cells[~half].copy()
    cd.CellDiT.setup_anndata(
        train, perturbation_key="perturbation", control="control", size_factor_key="total_umis"
    )
    model = cd.CellDiT(train)
    model.train(0, config=TrainingConfig(new_cells=False), enable_progress_bar=False)
    called = cd.tl.effects(train, model).query("lfsr < 0.05")
    log = np.log1p(other.X.toarray() / other.obs["total_umis"].to_numpy()[:, None] * 1e4)
    # Parts of a pair have an order of their own in the file.
    labels = ["+".join(sorted(label.split("+"))) for label in other.obs["perturbation"]]
    means = pd.DataFrame(log, columns=other.var_names).groupby(np.array(labels)).mean()
    measured = [
        means.loc["+".join(sorted(p.split("+"))), g] - means.loc["control", g]
        for p, g in zip(called["perturbation"], called["gene"], strict=True)
    ]
    return list(np.sign(measured) != np.sign(called["log2_fold_change"]))
