from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances

from celldit.errors import InputError
from celldit.evaluation.metrics import (
    classifier_auc,
    correlation_error,
    discrimination_scores,
    nearest_neighbor_accuracy,
    variance_ratio,
    zero_fraction_error,
)


def correlated(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) + 0.8 * rng.normal(size=(n, 20))


@pytest.mark.parametrize("n", [60, 1000])
def test_correlation_error_is_zero_for_a_replicate_and_one_without_correlations(n: int) -> None:
    truth = correlated(300, 0)
    shuffled = np.random.default_rng(5).permuted(correlated(n, 1), axis=0)
    replicates = [correlation_error(correlated(n, seed), truth) for seed in range(2, 22)]
    assert np.mean(replicates) == pytest.approx(0.0, abs=0.02)
    assert correlation_error(shuffled, truth) == pytest.approx(1.0, abs=0.1)
    assert correlation_error(np.ones((n, 20)), truth) == pytest.approx(1.0, abs=0.02)


def test_correlation_error_of_independent_genes_is_not_defined() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(correlation_error(rng.normal(size=(100, 20)), rng.normal(size=(100, 20))))
    assert np.isnan(correlation_error(np.ones((2, 3)), np.ones((9, 3))))


@given(st.floats(0.0, 10.0))
@settings(deadline=None, max_examples=20)
def test_variance_ratio_is_the_square_of_a_scale(scale: float) -> None:
    x = np.random.default_rng(0).normal(size=(40, 6))
    assert variance_ratio(scale * x + 3, x) == pytest.approx(scale**2)


def test_variance_ratio_of_constant_truth_is_nan() -> None:
    assert np.isnan(variance_ratio(np.eye(3), np.ones((4, 3))))
    assert np.isnan(variance_ratio(np.ones((1, 3)), np.eye(3)))


def test_zero_fraction_error_by_hand() -> None:
    x = np.array([[0.0, 1.0], [0.0, 1.0]])
    y = np.array([[0.0, 1.0], [2.0, 1.0]])
    assert zero_fraction_error(x, y) == pytest.approx(0.25)


def test_classifiers_tell_what_can_be_told() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 8)), rng.normal(size=(250, 8))
    assert classifier_auc(x, y) == pytest.approx(0.5, abs=0.12)
    assert classifier_auc(x + 3, y) > 0.99
    assert nearest_neighbor_accuracy(x, y) == pytest.approx(0.5, abs=0.12)
    assert nearest_neighbor_accuracy(x + 9, y) == 1.0
    # Copies: the nearest neighbour of each cell is its double on the other side.
    assert nearest_neighbor_accuracy(x + 1e-9, x) == 0.0


@given(st.integers(0, 2**32 - 1), st.sampled_from(["cosine", "l1"]))
@settings(deadline=None, max_examples=20)
def test_discrimination_is_the_rank_of_the_own_effect(seed: int, metric: str) -> None:
    u, v = np.random.default_rng(seed).normal(size=(2, 7, 12))
    scores = discrimination_scores(u, v, metric=metric)
    for p in range(7):
        gaps = cosine_distances(u[p : p + 1], v)[0] if metric == "cosine" else None
        gaps = np.abs(v - u[p]).sum(axis=1) if gaps is None else gaps
        assert scores[p] == pytest.approx(1 - 2 * np.sum(gaps < gaps[p]) / 6)
    np.testing.assert_array_equal(discrimination_scores(v, v, metric=metric), np.ones(7))


def test_constant_predictions_discriminate_at_chance_in_any_order() -> None:
    v = np.random.default_rng(0).normal(size=(9, 5))
    np.testing.assert_array_equal(discrimination_scores(np.zeros((9, 5)), v), np.zeros(9))
    same = np.tile(v[:1], (9, 1))
    assert discrimination_scores(same, v).mean() == pytest.approx(0.0, abs=1e-12)


def test_targets_of_the_whole_panel_are_left_out() -> None:
    v = 0.01 * np.random.default_rng(0).normal(size=(4, 10))
    v[np.arange(4), np.arange(4)] = -5.0
    knocked_out = np.zeros((4, 10))
    knocked_out[np.arange(4), np.arange(4)] = -5.0
    assert (discrimination_scores(knocked_out, v) == 1.0).all()
    left = discrimination_scores(knocked_out, v, left_out=np.arange(4))
    np.testing.assert_array_equal(left, np.zeros(4))


def test_an_empty_prediction_with_noise_of_its_own_scores_at_chance() -> None:
    rng = np.random.default_rng(0)
    found, leaving_out_own = [], []
    for _ in range(20):
        v = 0.02 * rng.normal(size=(30, 60))
        v[np.arange(30), np.arange(30)] = -1.0
        u = np.tile(0.01 * rng.normal(size=60), (30, 1))
        found.append(discrimination_scores(u, v, metric="l1", left_out=np.arange(30)).mean())
        own = [
            discrimination_scores(u, v, metric="l1", left_out=np.array([p]))[p] for p in range(30)
        ]
        leaving_out_own.append(np.mean(own))
    assert np.mean(found) == pytest.approx(0.0, abs=0.02)
    # The others' knock-outs push them away, so that an empty prediction would seem perfect.
    assert np.mean(leaving_out_own) > 0.9


def test_discrimination_needs_two_perturbations_and_a_known_metric() -> None:
    assert np.isnan(discrimination_scores(np.ones((1, 3)), np.ones((1, 3)))).all()
    with pytest.raises(InputError, match="'l3'"):
        discrimination_scores(np.ones((2, 3)), np.ones((2, 3)), metric="l3")
    with pytest.raises(InputError, match="shape"):
        discrimination_scores(np.ones((2, 3)), np.ones((3, 3)))
