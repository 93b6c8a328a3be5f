"""Several effects at once agree with single ones, and with what observing one does to the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from celldit.conditions import Condition
from celldit.effects.experiments import evenly_described, greedy_design, joint_covariance
from celldit.effects.fit_prior import fit_prior
from celldit.effects.prior import EffectPrior


@pytest.fixture(scope="module")
def prior(world: Callable[..., Any], crossed: list[Condition]) -> EffectPrior:
    made = world(crossed)
    return fit_prior(made.z, made.table)


ASKED = [
    Condition(("A",), None, "x"),
    Condition(("A", "C"), None, "x"),
    Condition(("A", "F"), None, "y"),
    Condition(("E", "F"), None, "y"),
]


def test_variances_are_those_of_single_estimates(prior: EffectPrior) -> None:
    variance_QF = np.diagonal(joint_covariance(prior, ASKED), axis1=1, axis2=2).T
    np.testing.assert_allclose(variance_QF, prior.estimate(ASKED).variance, atol=1e-9)


def test_many_sets_are_no_doubt(world: Callable[..., Any], crossed: list[Condition]) -> None:
    """What is chosen by takes likeness from memberships, and leaves tables of numbers alone."""
    made, names = world(crossed), ("A", "B", "C", "X", "Y")
    memberships = np.zeros((5, 30))
    memberships[:3, 0] = memberships[3] = memberships[4, 1] = 1
    sources = {"sets": (names, sparse.csr_matrix(memberships)), "numbers": (names, memberships)}
    prior = fit_prior(made.z, made.table, features=sources)
    even, asked = evenly_described(prior), [Condition((name,), None, "x") for name in "XY"]
    annotated, plain = np.diagonal(joint_covariance(prior, asked), axis1=1, axis2=2).sum(axis=0)
    assert annotated > 1.05 * plain
    kernel = even.kernel.design(asked, asked)
    np.testing.assert_allclose(np.diagonal(kernel["feature:sets"]), 1)
    np.testing.assert_allclose(kernel["feature:sets"][0, 1], 1 / np.sqrt(30))
    assert even.kernel.features["numbers"][1] is prior.kernel.features["numbers"][1]


def test_what_a_pick_is_said_to_leave_is_what_observing_it_leaves(prior: EffectPrior) -> None:
    """Against the effect model itself, with the picked condition among its observations.

    It will have controls of its own, so its noise is not shared.
    """
    prior = replace(prior, control_noise={})
    asked = [Condition((a, b), None, "x") for a, b in (("A", "C"), ("A", "D"), ("B", "F"))]
    covariance_FQQ = joint_covariance(prior, asked)
    noise_Q, weight_F = np.full(3, 0.02), np.ones(4)
    rows = [np.array([i]) for i in range(3)]
    first, *_ = greedy_design(covariance_FQQ, weight_F, rows, np.ones(3, bool), noise_Q, 1)
    seen = replace(
        prior,
        conditions=(*prior.conditions, asked[first.candidate]),
        shifts=np.concatenate([prior.shifts, np.zeros((1, 4))]),
        noise=np.append(prior.noise, 0.02),
    )
    others = [c for i, c in enumerate(asked) if i != first.candidate]
    before, after = (one.estimate(others).variance.sum() for one in (prior, seen))
    whole = prior.estimate(asked).variance.sum()
    assert first.of_others == pytest.approx((before - after) / whole, abs=1e-9)
    assert first.gain == pytest.approx((whole - after) / whole, abs=1e-9)
    assert first.left == pytest.approx(after / whole, abs=1e-9)


def test_greedy_is_the_best_single_pick_and_never_measures_twice() -> None:
    """Two groups of effects that are alike: the larger first, then the other, not its twin."""
    group = np.array([0, 0, 0, 0, 1, 1, 2])
    covariance = (group[:, None] == group).astype(float) + 0.05 * np.eye(7)
    rows = [np.array([i]) for i in range(7)]
    picks = greedy_design(covariance[None], np.ones(1), rows, np.ones(7, bool), np.full(7, 0.1), 3)
    assert [group[pick.candidate] for pick in picks][:2] == [0, 1]
    assert picks[0].gain > picks[1].gain > picks[2].gain
    assert picks[0].left > picks[1].left
    every = greedy_design(covariance[None], np.ones(1), rows, np.ones(7, bool), np.ones(7), 99)
    assert sorted(pick.candidate for pick in every) == list(range(7))


def test_what_is_not_asked_about_does_not_count() -> None:
    covariance = np.kron(np.eye(2), np.ones((2, 2))) + 0.1 * np.eye(4)
    about = np.array([False, False, True, True])
    rows = [np.array([i]) for i in range(4)]
    first, *_ = greedy_design(covariance[None], np.ones(1), rows, about, np.full(4, 0.1), 1)
    assert first.candidate in (2, 3)
