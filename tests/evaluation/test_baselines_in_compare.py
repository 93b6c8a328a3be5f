"""Baselines, the challenge's scores and perturbations resampled, all through compare."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from celldit.errors import InputError, UnknownNameError
from celldit.evaluation import compare, dynamic_range, headroom, paired
from celldit.evaluation.ceiling import ceiling
from celldit.evaluation.resampling import CLASSES, progress


@pytest.fixture(scope="module")
def parts(papalexi: Any) -> tuple[ad.AnnData, ad.AnnData, ad.AnnData]:
    """Knock-outs in one replicate, predicted by another half; the whole screen as control."""
    one, two = (
        x[x.obs["replicate"] == "rep_2"].copy() for x in (papalexi.replicate, papalexi.truth)
    )
    return one, two, papalexi.whole


@pytest.fixture(scope="module")
def table(parts: tuple) -> pd.DataFrame:
    return compare(parts[0], parts[1], parts[2], baselines=True, equal_cells=True, n_repeats=2)


def test_one_call_gives_all_baselines(table: pd.DataFrame, parts: tuple) -> None:
    assert {"prediction", "no change", "mean shift", "nearest", "ceiling"} <= set(table.index)
    assert table.loc["no change", "nmse"] > table.loc["nearest", "nmse"]
    assert "covariance of controls" in table.attrs["skipped"]
    given = compare(parts[0], parts[1], parts[2], baselines=parts[2], equal_cells=True, n_repeats=2)
    pd.testing.assert_frame_equal(given, table)
    scored = compare(parts[0], parts[1], parts[2], baselines=True, baseline="nearest", n_repeats=1)
    assert scored.loc["nearest", "pearson_score"] == pytest.approx(0.0)
    with pytest.raises(InputError, match="called 'nearest', as one of the baselines"):
        compare({"nearest": parts[0]}, *parts[1:], baselines=True)
    with pytest.raises(UnknownNameError, match="baseline among the predictions"):
        compare(parts[0], *parts[1:], baseline="nearest")


def test_the_challenge_s_scores_side_by_side(parts: tuple) -> None:
    found = compare(parts[0], *parts[1:], baselines=True, metrics="vcc2026", baseline="mean shift")
    usable = found.attrs["measures"]
    assert found.loc["mean shift", "composite"] == pytest.approx(0.0, abs=1e-12)
    assert found.loc["ceiling", "composite"] == 1.0
    np.testing.assert_allclose(found["composite"], found[usable].mean(axis=1))
    assert found.loc["prediction", "composite"] > found.loc["nearest", "composite"]
    row = found.loc["prediction"]
    assert row["low"] < row["composite"] < row["high"]
    again = compare(parts[0], *parts[1:], baselines=True, metrics="vcc2026", baseline="mean shift")
    pd.testing.assert_frame_equal(found, again)
    # Without a baseline, 0 is the mean response of the measured panel itself.
    oracle = compare(parts[0], *parts[1:], metrics="vcc2026")
    assert list(oracle.index) == ["prediction", "ceiling"]


def test_one_perturbation_is_compared_with_a_baseline_of_its_own(parts: tuple) -> None:
    one, two = (x[x.obs["perturbation"] == "STAT1"].copy() for x in parts[:2])
    with pytest.raises(InputError, match="needs several perturbations"):
        compare(one, two, parts[2], metrics="vcc2026")
    found = compare(one, two, parts[2], metrics="vcc2026", baselines=True, baseline="no change")
    assert "pds" not in found.attrs["measures"]
    assert np.isfinite(found.loc["prediction", "composite"])
    assert np.isnan(found.loc["prediction", "low"])


def test_corrupted_submissions_rank_below_a_replicate(parts: tuple) -> None:
    """Shuffled, mean-only, variance-doubled, mixed up and empty, each by some default measure."""
    good, truth, control = parts
    rng = np.random.default_rng(0)

    def changed(change: Any) -> ad.AnnData:
        result = good.copy()
        dense = result.layers["counts"].toarray().astype(np.float64)
        for rows in result.obs.groupby("perturbation", observed=True).indices.values():
            dense[rows] = change(dense[rows])
        result.layers["counts"] = np.maximum(np.rint(dense), 0).astype(np.float32)
        result.layers["counts"][:, 0] += 1
        return result

    mixed = good.copy()
    names = sorted(set(good.obs["perturbation"]))
    turned = dict(zip(names, np.roll(names, 1), strict=True))
    mixed.obs["perturbation"] = good.obs["perturbation"].astype(str).map(turned)
    is_control = (control.obs["perturbation"] == "control") & (control.obs["replicate"] == "rep_2")
    base = control[is_control.to_numpy()]
    empty = good.copy()
    rows = rng.integers(0, base.n_obs, size=good.n_obs)
    empty.layers["counts"] = base.X[rows]
    empty.obs["size_factor"] = base.obs["total_umis"].to_numpy()[rows]
    submissions = {
        "replicate": good,
        "shuffled": changed(lambda x: rng.permuted(x, axis=0)),
        "mean only": changed(lambda x: np.repeat(x.mean(axis=0, keepdims=True), len(x), axis=0)),
        "variance doubled": changed(lambda x: x.mean(axis=0) + np.sqrt(2) * (x - x.mean(axis=0))),
        "mixed up": mixed,
        "empty": empty,
    }
    names = ["pearson", "nmse", "energy", "discrimination", "variance_ratio", "correlation_error"]
    found = compare(submissions, truth, control, metrics=names, n_repeats=1)
    seen = {
        "shuffled": "correlation_error",
        "mean only": "variance_ratio",
        "variance doubled": "variance_ratio",
        "mixed up": "discrimination",
        "empty": "nmse",
    }
    from celldit.evaluation import METRICS

    for name, metric in seen.items():
        loss = METRICS[metric].loss
        assert loss(found.loc[name, metric]) > loss(found.loc["replicate", metric]), name


def test_paired_comparisons_and_headroom(table: pd.DataFrame) -> None:
    gains = paired(table, "prediction", "mean shift")
    assert (gains["gain"] > 0).all()
    assert (gains["low"] <= gains["gain"]).all()
    assert (gains["gain"] <= gains["high"]).all()
    assert (gains["n_perturbations"] == 6).all()
    # Signs of six perturbations can be turned in 64 ways.
    assert gains["p_value"].min() > 1 / 64
    back = paired(table, "mean shift", "prediction")
    np.testing.assert_allclose(back["gain"], -gains["gain"])
    with pytest.raises(InputError, match="both are 'nearest'"):
        paired(table, "nearest", "nearest")
    left = headroom(table, "prediction", "mean shift")
    assert set(left["headroom"]) <= set(CLASSES)
    assert (left["headroom"] == "in reach").sum() >= 3
    nothing = headroom(table, "mean shift", "ceiling")
    assert set(nothing["headroom"]) <= {"solved by the baseline", "undetectable"}
    with pytest.raises(UnknownNameError, match="method in the table"):
        paired(table, "prediction", "scGen")
    with pytest.raises(InputError, match="single conditions"):
        paired(pd.DataFrame({"pearson": [1.0]}), "a", "b")


def test_progress_is_one_for_the_replicate_and_zero_for_the_baseline(table: pd.DataFrame) -> None:
    records = pd.DataFrame(table.attrs["by_condition"])
    metrics = ["pearson", "nmse", "energy"]
    top = progress(records, "ceiling", "no change", metrics)
    assert (top.share, top.low, top.high) == pytest.approx((1.0, 1.0, 1.0))
    assert progress(records, "no change", "no change", metrics).share == 0.0
    own = progress(records, "nearest", "no change", metrics)
    expected = []
    for metric in metrics:
        means = records[records["metric"] == metric].groupby("method")["value"].mean()
        expected.append(
            (means["nearest"] - means["no change"]) / (means["ceiling"] - means["no change"])
        )
    assert own.share == pytest.approx(np.mean(expected))
    assert own.low < own.share < own.high
    assert own.n_perturbations == 6


def test_dynamic_range_tells_good_from_empty(parts: tuple) -> None:
    found = dynamic_range(parts[1], parts[2], metrics=["pearson", "discrimination", "energy"])
    kept = found.drop(index="false_calls")
    assert kept["tells"].all()
    assert kept.loc["discrimination", "no_change"] == pytest.approx(0.0, abs=0.02)
    assert kept.loc["pearson", "mixed_up"] < kept.loc["pearson", "replicate"]
    # Of 299 genes, at a false discovery rate of five percent where nothing differs.
    assert found.loc["false_calls", "no_change"] < 3
    with pytest.raises(InputError, match="n_repeats"):
        dynamic_range(parts[1], parts[2], n_repeats=1)


def test_weak_effects_leave_a_measure_without_range(papalexi: Any) -> None:
    """Control cells under the labels of knock-outs: nothing can be told."""
    base = papalexi.control[papalexi.control.obs["replicate"] == "rep_1"].copy()
    rng = np.random.default_rng(0)
    truth = base[: base.n_obs // 2].copy()
    truth.obs["perturbation"] = rng.choice(["A", "B", "C"], size=truth.n_obs)
    control = base[base.n_obs // 2 :].copy()
    found = dynamic_range(truth, control, metrics=["pearson", "discrimination"])
    assert not found.loc["discrimination", "tells"]
    assert abs(found.loc["pearson", "replicate"]) < 0.2


def test_a_denoised_replicate_is_better_than_a_plain_one(parts: tuple) -> None:
    plain, denoised = (
        ceiling(parts[1], parts[2], metrics=["pearson", "energy"], n_repeats=2, denoised=choice)
        for choice in (False, True)
    )
    means = [t.groupby("metric")["value"].mean() for t in (plain, denoised)]
    assert means[1]["pearson"] > means[0]["pearson"]


def test_halves_of_the_ceiling_share_no_control_cell(parts: tuple) -> None:
    from celldit.evaluation.task import Task

    task = Task.prepare(parts[1], parts[2])
    half, _ = task.halved(0)
    assert half.predicted_control is not None
    one, other = (
        {row.tobytes() for row in side.dense(np.arange(side.n_cells))}
        for side in (half.predicted_control, half.control)
    )
    assert len(one & other) <= 0.01 * len(one)
    sizes = {key: len(rows) for key, rows in task.control.conditions().items()}
    assert {k: len(v) for k, v in half.control.conditions().items()} == {
        k: n // 2 for k, n in sizes.items()
    }


@pytest.mark.parametrize("turned", ["control", "baselines"])
@pytest.mark.parametrize("metrics", ["pearson", "vcc2026"])
def test_genes_in_another_order_are_noted_once(turned: str, metrics: str, parts: tuple) -> None:
    given = {"control": parts[2], "baselines": parts[2]}
    given[turned] = parts[2][:, ::-1].copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compare(*parts[:2], **given, metrics=metrics, n_repeats=1)
    noted = [str(w.message) for w in caught if "another order" in str(w.message)]
    assert noted == [
        f"The genes of {turned} are in another order than those of truth; they are matched by name."
    ]


def test_a_prediction_that_is_none_is_refused_before_baselines(parts: tuple) -> None:
    with pytest.raises(InputError, match=r"an AnnData as predictions\['mine'\], got int"):
        compare({"mine": 3}, *parts[1:], baselines=True)


def test_baselines_learn_from_cells_on_disk_that_were_not_set_up(
    parts: tuple, tmp_path: Path
) -> None:
    bare = parts[2].copy()
    bare.uns.clear()
    bare.write_h5ad(tmp_path / "screen.h5ad")
    expected = compare(*parts, baselines=bare, n_repeats=1)
    found = compare(
        *parts, baselines=ad.read_h5ad(tmp_path / "screen.h5ad", backed="r"), n_repeats=1
    )
    pd.testing.assert_frame_equal(found, expected)
    assert "celldit" not in bare.uns
