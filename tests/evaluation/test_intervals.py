from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from celldit.errors import InputError
from celldit.evaluation import evaluate, intervals
from celldit.evaluation.metrics import energy_distance
from celldit.evaluation.uncertainty import _around, _rows


def half_sample_interval(statistic, samples, n_resamples, seed=0):
    rng = np.random.default_rng(seed)
    drawn = [
        [statistic(*(sample[_rows(len(sample), rng)] for sample in samples))]
        for _ in range(n_resamples)
    ]
    low, high = _around(np.array([statistic(*samples)]), np.array(drawn), 0.9)
    return low[0], high[0]


def test_an_interval_of_a_mean_is_that_of_the_normal() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(400, 1))
    low, high = half_sample_interval(lambda a: float(a.mean()), [x], n_resamples=3000)
    half = 1.645 * x.std() / np.sqrt(400)
    assert low == pytest.approx(x.mean() - half, abs=0.02)
    assert high == pytest.approx(x.mean() + half, abs=0.02)


def test_intervals_of_a_distance_cover_the_distance() -> None:
    rng = np.random.default_rng(0)
    move = np.array([1.0, 0, 0])
    far = rng.normal(size=(2, 4000, 3))
    expected = energy_distance(far[0], far[1] + move)
    hits = []
    for seed in range(60):
        x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) + move
        low, high = half_sample_interval(energy_distance, [x, y], n_resamples=60, seed=seed)
        hits.append(low <= expected <= high)
    assert 0.78 <= np.mean(hits) <= 0.99


def test_scores_are_those_of_evaluate_and_lie_in_their_intervals(papalexi: Any) -> None:
    keep = papalexi.replicate.obs["perturbation"].isin(["STAT1", "SMAD4"]).to_numpy()
    predicted = papalexi.replicate[keep].copy()
    truth = papalexi.truth[papalexi.truth.obs["perturbation"].isin(["STAT1", "SMAD4"])].copy()
    found = intervals(predicted, truth, papalexi.control, n_resamples=12)
    again = intervals(predicted, truth, papalexi.control, n_resamples=12)
    assert found.equals(again)
    plain = evaluate(predicted, truth, papalexi.control, metrics=("pearson", "nmse", "energy"))
    np.testing.assert_array_equal(found["value"], plain["value"])
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    assert found.query("metric == 'pearson'")["high"].max() <= 1.0
    # Noise is subtracted from squared errors, so they may fall below what is perfect.
    assert found.query("metric == 'nmse'")["low"].min() > -0.2


def test_what_has_no_score_has_no_interval(papalexi: Any) -> None:
    one = papalexi.replicate[papalexi.replicate.obs["perturbation"] == "STAT1"].copy()
    with pytest.warns(UserWarning, match="not scored"):
        found = intervals(one, papalexi.truth, papalexi.control, metrics="nmse", n_resamples=3)
    assert found.loc[found["value"].isna(), ["low", "high"]].isna().all(axis=None)
    assert found.loc[found["value"].notna(), ["low", "high"]].notna().all(axis=None)
    with pytest.raises(InputError, match="level=95 must lie between 0 and 1"):
        intervals(one, papalexi.truth, papalexi.control, level=95)


def test_where_nothing_can_be_scored_nothing_has_an_interval(papalexi: Any) -> None:
    with pytest.warns(UserWarning, match="not scored"):
        found = intervals(
            papalexi.replicate, papalexi.truth, papalexi.control, min_cells=10_000, n_resamples=2
        )
    assert len(found)
    assert found[["value", "low", "high"]].isna().all(axis=None)
