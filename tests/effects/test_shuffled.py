"""A source of features is believed only where it beats its own shuffles."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from celldit.conditions import Condition, ConditionTable
from celldit.effects.features.features import read_features, warn_uninformative
from celldit.effects.features.shuffled import MIN_DESCRIBED, without_sources
from celldit.effects.fit_prior import fit_prior

PATHWAY = [f"S{i}" for i in range(5)]
OTHERS = [f"W{i}" for i in range(15)]
EVERY = PATHWAY + OTHERS
N_DIMS = 12


@pytest.fixture(scope="module")
def screen() -> tuple[np.ndarray, ConditionTable]:
    """Five knock-outs of one pathway share an effect; fifteen others each do something small."""
    rng = np.random.default_rng(0)
    conditions = [Condition(()), *(Condition((name,)) for name in EVERY)]
    shared = 3 * np.eye(N_DIMS)[0]
    shifts = [np.zeros(N_DIMS), *(shared + 0.4 * rng.normal(size=N_DIMS) for _ in PATHWAY)]
    shifts += [0.6 * rng.normal(size=N_DIMS) for _ in OTHERS]
    index = np.repeat(np.arange(len(conditions)), 40)
    z = np.array(shifts)[index] + rng.normal(size=(len(index), N_DIMS))
    return z, ConditionTable(tuple(conditions), index)


def informed() -> pd.DataFrame:
    """Random numbers, of which the pathway's members share a good part."""
    rng = np.random.default_rng(1)
    table = rng.normal(size=(len(EVERY), 20))
    table[: len(PATHWAY)] += 3 * rng.normal(size=20)
    return pd.DataFrame(table, index=EVERY)


def uninformative(
    screen: tuple[np.ndarray, ConditionTable], features: pd.DataFrame | dict[str, pd.DataFrame]
) -> tuple[str, ...]:
    return fit_prior(*screen, features=read_features(features)).uninformative


def test_features_that_tell_are_believed_beside_others_that_do_not(
    screen: tuple[np.ndarray, ConditionTable],
) -> None:
    noise = pd.DataFrame(np.random.default_rng(2).normal(size=(len(EVERY), 20)), index=EVERY)
    assert uninformative(screen, {"pathways": informed(), "noise": noise}) == ("noise",)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_features_dealt_out_at_random_are_not(
    screen: tuple[np.ndarray, ConditionTable], seed: int
) -> None:
    table = informed()
    order = np.random.default_rng(seed).permutation(EVERY)
    assert len(uninformative(screen, table.set_axis(order, axis=0))) == 1


def test_the_order_of_a_table_does_not_matter(screen: tuple[np.ndarray, ConditionTable]) -> None:
    noise = pd.DataFrame(np.random.default_rng(3).normal(size=(len(EVERY), 20)), index=EVERY)
    prior, turned = (
        fit_prior(*screen, features=read_features({"a": informed(), "b": table}))
        for table in (noise, noise.iloc[::-1])
    )
    assert prior.uninformative == turned.uninformative
    np.testing.assert_allclose(
        prior.of_unseen.weights, turned.of_unseen.weights, rtol=1e-6, atol=1e-9
    )


def test_too_few_described_perturbations_prove_nothing(
    screen: tuple[np.ndarray, ConditionTable],
) -> None:
    few = informed().loc[EVERY[: MIN_DESCRIBED - 1]]
    assert len(uninformative(screen, few)) == 1


def test_what_is_not_believed_is_each_perturbations_own() -> None:
    terms = ("part", "feature:a", "feature:b", "interaction")
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert without_sources(weights, terms, {"b"}).tolist() == [3.0, 0.0, 4.0, 8.0]
    assert without_sources(weights, terms, {"a", "b"}).tolist() == weights.tolist()


def test_an_unseen_perturbation_is_then_predicted_as_without_features(
    screen: tuple[np.ndarray, ConditionTable],
) -> None:
    table = informed()
    noise = table.set_axis(np.random.default_rng(0).permutation(EVERY), axis=0)
    noise.loc["new"] = noise.loc["S0"]
    prior = fit_prior(*screen, features=read_features(noise))
    likened, unlike = prior.estimate([Condition(("new",)), Condition(("unheard of",))]).mean
    np.testing.assert_allclose(likened, unlike, rtol=1e-9)


def test_the_user_is_told() -> None:
    features = read_features({"a": informed(), "b": informed()})
    with pytest.warns(UserWarning, match="'a' were not seen.*they rest on 'b'"):
        warn_uninformative(features, ("a",))
    with pytest.warns(UserWarning, match="'a' and 'b'.*near the mean effect.*Another source"):
        warn_uninformative(features, ("a", "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_uninformative(features, ())


def test_a_combination_of_seen_and_unseen_is_the_sum_of_both(
    screen: tuple[np.ndarray, ConditionTable],
) -> None:
    """The seen part keeps the strengths for what was seen, whatever is believed of the other."""
    prior = fit_prior(*screen, features=read_features(informed())).of_effects
    both, seen, unseen = prior.estimate(
        [Condition(("S0", "new")), Condition(("S0",)), Condition(("new",))]
    ).mean
    np.testing.assert_allclose(both, seen + unseen, rtol=1e-9, atol=1e-12)
