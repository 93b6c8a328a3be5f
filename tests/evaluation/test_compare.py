from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest

from celldit.data import Cells
from celldit.errors import CellditError, InputError, UnknownNameError
from celldit.evaluation import ceiling, compare, evaluate, score
from celldit.evaluation.baselines import Additive, MeanShift, NoChange, predict_anndata

from .conftest import mean_over_conditions


@pytest.fixture(scope="module")
def predictions(papalexi: Any) -> dict[str, ad.AnnData]:
    """Knock-outs in the second replicate, from what they did in the first."""
    halves = papalexi
    seen = halves.whole[halves.whole.obs["replicate"] == "rep_1"]
    train = Cells.from_anndata(seen, halves.fields)
    here = halves.control[halves.control.obs["replicate"] == "rep_2"]
    controls = Cells.from_anndata(here, halves.fields)
    wanted = sorted(set(halves.truth.obs["perturbation"]))
    replicate = halves.replicate[halves.replicate.obs["replicate"] == "rep_2"].copy()
    made = {
        baseline.name: predict_anndata(baseline.fit(train), controls, wanted, halves.fields)
        for baseline in (NoChange(), MeanShift(), Additive())
    }
    return {**made, "other half": replicate}


@pytest.fixture(scope="module")
def truth(papalexi: Any) -> ad.AnnData:
    return papalexi.truth[papalexi.truth.obs["replicate"] == "rep_2"].copy()


def test_the_other_half_scores_one_and_the_baseline_zero(
    predictions: dict[str, ad.AnnData], truth: ad.AnnData, papalexi: Any
) -> None:
    table = compare(
        predictions, truth, papalexi.control, baseline="mean shift", n_repeats=4, seed=1
    )
    assert list(table.index) == [*predictions, "ceiling"]
    for metric in ("pearson", "nmse", "energy"):
        column = table[f"{metric}_score"]
        assert column["mean shift"] == pytest.approx(0.0, abs=1e-12)
        assert column["ceiling"] == pytest.approx(1.0, abs=1e-12)
        # The noise of a measurement is an error of a prediction; that of the replicate is known.
        assert column["other half"] == pytest.approx(0.8 if metric == "nmse" else 1.0, abs=0.15)
        assert column["no change"] < column["additive"]
    assert table.attrs["n_conditions"]["pearson"] == 6


def test_an_additive_prediction_scores_zero_against_itself(
    predictions: dict[str, ad.AnnData], truth: ad.AnnData, papalexi: Any
) -> None:
    twice = {"additive": predictions["additive"], "again": predictions["additive"].copy()}
    table = compare(twice, truth, papalexi.control, baseline="additive", n_repeats=2)
    scores = table.loc["again", ["pearson_score", "nmse_score", "energy_score"]]
    np.testing.assert_allclose(scores.to_numpy(dtype=float), 0.0, atol=1e-9)


def test_rows_are_what_evaluate_says(
    predictions: dict[str, ad.AnnData], truth: ad.AnnData, papalexi: Any
) -> None:
    table = compare(predictions, truth, papalexi.control, n_repeats=2)
    means = mean_over_conditions(evaluate(predictions["additive"], truth, papalexi.control))
    for metric in ("pearson", "nmse", "energy"):
        assert table.loc["additive", metric] == pytest.approx(means[metric])
    assert table.loc["no change", "nmse"] == pytest.approx(1.0, abs=1e-5)
    assert table.loc["no change", "pearson"] == pytest.approx(0.0, abs=0.05)
    equal = compare(predictions, truth, papalexi.control, n_repeats=2, equal_cells=True)
    assert equal.loc["ceiling"].equals(table.loc["ceiling"])
    assert equal.loc["additive", "pearson"] < table.loc["additive", "pearson"]
    # The noise that drawing cells brings is subtracted, from replicate and methods.
    assert equal.loc["ceiling", "nmse"] == pytest.approx(0.0, abs=0.1)
    assert equal.loc["additive", "nmse"] == pytest.approx(table.loc["additive", "nmse"], abs=0.1)


def test_missing_conditions_are_left_out_of_every_row(
    predictions: dict[str, ad.AnnData], truth: ad.AnnData, papalexi: Any
) -> None:
    lacking = predictions["additive"]
    lacking = lacking[lacking.obs["perturbation"] != "IRF1"].copy()
    with pytest.warns(UserWarning, match=r"IRF1.*additive"):
        table = compare({**predictions, "additive": lacking}, truth, papalexi.control, n_repeats=1)
    assert table.attrs["n_conditions"] == {"pearson": 5, "nmse": 5, "energy": 5}


def test_bad_comparisons(
    predictions: dict[str, ad.AnnData], truth: ad.AnnData, papalexi: Any
) -> None:
    with pytest.raises(InputError, match="at least one prediction"):
        compare({}, truth, papalexi.control)
    with pytest.raises(UnknownNameError, match=r"'Additive'.*Did you mean 'additive'"):
        compare(predictions, truth, papalexi.control, baseline="Additive")
    with pytest.raises(InputError, match="n_repeats"):
        compare(predictions, truth, papalexi.control, n_repeats=0)
    with pytest.raises(InputError, match="n_repeats"):
        ceiling(truth, papalexi.control, n_repeats=0)


def test_ceiling_repeats_and_is_high_for_strong_effects(truth: ad.AnnData, papalexi: Any) -> None:
    one = ceiling(truth, papalexi.control, metrics=["pearson", "energy", "n_measured"])
    again = ceiling(truth, papalexi.control, metrics=["pearson", "energy", "n_measured"])
    assert one.equals(again)
    means = mean_over_conditions(one)
    assert means["pearson"] > 0.7
    assert abs(means["energy"]) < 0.02
    sizes = one[one["metric"] == "n_measured"].set_index("perturbation")["value"]
    for name, size in sizes.items():
        assert size == int((truth.obs["perturbation"] == name).sum()) // 2


def test_score_by_hand() -> None:
    assert score(0.9, 0.8, 1.0, "pearson") == pytest.approx(0.5)
    assert score(0.3, 0.4, 0.2, "nmse") == pytest.approx(0.5)
    assert score(0.5, 0.4, 0.2, "energy") == pytest.approx(-0.5)
    assert score(1.2, 0.6, 1.0, "variance_ratio") == pytest.approx(0.5)
    assert score(1.1, 0.8, 1.0, "pearson") == pytest.approx(1.5)
    assert np.isnan(score(0.5, 0.8, 0.7, "pearson"))
    assert np.isnan(score(np.nan, 0.8, 0.9, "pearson"))
    with pytest.raises(UnknownNameError, match="metric"):
        score(1.0, 0.0, 1.0, "pearsson")


@pytest.mark.parametrize("metrics", ["pearson", "vcc2026"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a[:, 1:].copy(),
        lambda a: ad.AnnData(a.X, obs=a.obs.drop(columns="replicate"), var=a.var),
        lambda a: ad.AnnData(a.X, obs=a.obs.assign(perturbation="nothing"), var=a.var),
    ],
)
def test_an_error_names_the_prediction_that_is_wrong(
    spoil: Any, metrics: str, predictions: dict[str, ad.AnnData], truth: ad.AnnData, papalexi: Any
) -> None:
    both = {"good": predictions["other half"], "bad": spoil(predictions["other half"])}
    with pytest.raises(CellditError, match=r"predictions\['bad'\]") as error:
        compare(both, truth, papalexi.control, metrics=metrics, n_repeats=1)
    assert "good" not in str(error.value)
    with pytest.raises(CellditError, match=r"(of|in|^)\s?predicted\b"):
        compare(both["bad"], truth, papalexi.control, metrics=metrics, n_repeats=1)
