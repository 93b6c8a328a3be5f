"""Conditions of one or two cells have estimates of their own, and change no other's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celldit.conditions import Condition, ConditionTable
from celldit.effects.few_cells import FewCells, variance_of_few
from celldit.effects.fit_prior import fit_prior, joined
from celldit.effects.posterior import Observed
from celldit.effects.storage import prior_arrays, prior_config, prior_from

Make = Callable[..., object]
NAMES = "ABCDEFGHIJ"


def single(name: str) -> Condition:
    return Condition((name,), None, "")


def cut(world: Make, sizes: dict[str, int], seed: int = 0) -> tuple[object, ConditionTable]:
    """A world of single perturbations, some of which have this many cells only, 60 the others."""
    made = world([Condition(), *map(single, NAMES)], exact=False, seed=seed)
    rank = np.arange(len(made.z)) - np.searchsorted(made.table.index, made.table.index)
    most = np.array([60, *(sizes.get(name, 60) for name in NAMES)])
    keep = rank < most[made.table.index]
    return made.z[keep], replace(made.table, index=made.table.index[keep])


@given(seed=st.integers(0, 10_000))
def test_it_is_what_the_process_would_say_of_it_with_these_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, n_dims = 5, 3
    root = rng.normal(size=(n, n + 2))
    kernel, totals, noise = root @ root.T / n, rng.normal(size=n), rng.gamma(2, 0.2, n)
    shifts, signal, common = rng.normal(size=(n, n_dims)), *rng.gamma(1, 1, (2, n_dims))
    rest = Observed(
        shifts[1:], noise[1:], totals[1:], kernel[1:, 1:], signal, common
    ).predict(kernel[:1, 1:], totals[:1], kernel[:1, 0])  # fmt: skip
    whole = Observed(shifts, noise, totals, kernel, signal, common).predict(
        kernel[:1], totals[:1], kernel[:1, 0]
    )
    few = FewCells((single("A"),), shifts[:1], np.full((1, n_dims), noise[0]))
    for one, two in zip(few.updated([single("A")], *rest), whole, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-8)


def test_doubt_follows_the_number_of_cells_down_to_one(world: Make) -> None:
    sizes = {"A": 1, "B": 2, "C": 3, "D": 8, "E": 60}
    doubts = []
    for seed in range(3):
        prior = fit_prior(*cut(world, sizes, seed))
        doubts.append(prior.estimate([*map(single, sizes), single("never seen")]).sd)
    assert (np.diff(np.mean(doubts, axis=0)[:5]) < 0).all()
    assert (np.array(doubts)[:, 0] < np.array(doubts)[:, 5]).all()


def test_each_has_an_estimate_of_its_own(world: Make) -> None:
    """It is nearer to the truth than what other conditions say, and not surer than it may be."""
    errors, of_others, scaled = [], [], []
    for seed in range(8):
        made = world([Condition(), *map(single, NAMES)], exact=False, seed=seed)
        prior = fit_prior(*cut(world, {"A": 1, "B": 1, "C": 2, "D": 2}, seed))
        found, blind = (
            each.estimate([*map(single, "ABCD")]) for each in (prior, replace(prior, few=None))
        )
        assert len(np.unique(found.mean.round(6), axis=0)) == 4
        truth = np.array([made.truth(name) for name in "ABCD"])
        errors.append(((found.mean - truth) ** 2).mean())
        of_others.append(((blind.mean - truth) ** 2).mean())
        scaled.append((found.mean - truth) @ prior.rotation / np.sqrt(found.variance))
    assert np.mean(errors) < 0.8 * np.mean(of_others)
    assert (np.abs(scaled) < 1.645).mean() > 0.65


def test_they_change_no_other_estimate(world: Make) -> None:
    z, table = cut(world, {"A": 2, "B": 1})
    prior = fit_prior(z, table)
    big = table.index > 2
    big |= table.index == 0
    alone = fit_prior(
        z[big],
        ConditionTable((Condition(), *map(single, NAMES[2:])), (table.index[big] - 2).clip(min=0)),
    )
    assert prior.few.conditions == (single("A"), single("B"))
    assert prior.conditions == alone.conditions
    asked = [*prior.conditions, single("never seen")]
    # Cells of other conditions tell a little of how much cells scatter.
    np.testing.assert_allclose(
        prior.estimate(asked).mean, alone.estimate(asked).mean, rtol=0.05, atol=0.02
    )
    odd = replace(prior, few=replace(prior.few, shifts_EF=prior.few.shifts_EF + 100))
    np.testing.assert_array_equal(odd.estimate(asked).mean, prior.estimate(asked).mean)
    assert not np.allclose(odd.estimate([single("A")]).mean, prior.estimate([single("A")]).mean)


def test_where_their_context_starts_is_in_doubt_too() -> None:
    """Two cells in a batch without controls, in which nothing else was done."""
    rng = np.random.default_rng(0)
    sizes = {Condition((p,) if p else (), None, b): 60 for b in ("x", "y") for p in ("", *NAMES)}
    start = {"x": np.zeros(4), "y": rng.normal(size=4), "z": 5 * rng.normal(size=4)}
    sizes[Condition(("A",), None, "z")] = 2
    effects = {name: rng.normal(size=4) for name in NAMES}
    index = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    means = np.array(
        [start[c.context] + sum((effects[p] for p in c.parts), np.zeros(4)) for c in sizes]
    )
    z = means[index] + rng.normal(size=(len(index), 4))
    prior = fit_prior(z, ConditionTable(tuple(sizes), index))
    asked = Condition(("A",), None, "z")
    assert prior.few.conditions == (asked,)
    found = prior.estimate([asked])
    assert ((found.mean[0] - effects["A"]) ** 2).sum() < 0.3 * (start["z"] ** 2).sum()
    sure = replace(prior, few=replace(prior.few, noise_EF=np.full((1, 4), 0.5)))
    assert found.sd[0] > sure.estimate([asked]).sd[0]


def test_left_out_they_are_gone(world: Make) -> None:
    prior = fit_prior(*cut(world, {"A": 2, "B": 1}))
    without = prior.without([single("A")])
    assert without.few.conditions == (single("B"),)
    plain = replace(prior, few=None).estimate([single("A"), single("B")]).mean
    np.testing.assert_allclose(without.estimate([single("A")]).mean, plain[:1], atol=1e-12)
    assert not np.allclose(without.estimate([single("B")]).mean, plain[1:])


def test_where_all_have_so_few_cells_they_are_all_there_is(world: Make) -> None:
    prior = fit_prior(*cut(world, dict.fromkeys(NAMES, 2)))
    assert len(prior.conditions) == len(NAMES)
    assert prior.few is None
    np.testing.assert_allclose(prior.noise, variance_of_few(np.array(2.0)) + 1 / 60)


def test_one_that_never_varies_has_no_doubt_left() -> None:
    few = FewCells((single("A"),), np.ones((1, 2)), np.full((1, 2), 0.5))
    mean, variance = few.updated([single("A")], np.zeros((1, 2)), np.array([[0.0, 0.5]]))
    np.testing.assert_allclose(mean, [[0.0, 0.5]])
    np.testing.assert_allclose(variance, [[0.0, 0.25]])


def test_a_second_training_keeps_them_until_there_are_more_cells(world: Make) -> None:
    first = fit_prior(*cut(world, {"A": 2, "B": 1}))
    second = fit_prior(*cut(world, {"B": 2, "C": 1}))
    both = joined(second, first)
    # The second saw A in many cells, and B in few as the first did; the first saw C in many.
    assert both.few.conditions == (single("B"),)
    assert set(both.conditions) == set(map(single, NAMES)) - {single("B")}


def test_they_are_saved(world: Make) -> None:
    prior = fit_prior(*cut(world, {"A": 2, "B": 1}))
    again = prior_from(json.loads(json.dumps(prior_config(prior))), prior_arrays(prior))
    asked = [*map(single, "AB")]
    for one, two in ((prior, again), (prior.without(asked[:1]), again.without(asked[:1]))):
        np.testing.assert_array_equal(one.estimate(asked).mean, two.estimate(asked).mean)
        np.testing.assert_array_equal(one.estimate(asked).variance, two.estimate(asked).variance)


@pytest.mark.parametrize("n", [1, 2])
def test_few_cells_are_less_sure_than_their_number(n: int) -> None:
    assert variance_of_few(np.array(n)) > 1 / n
    assert variance_of_few(np.array(2)) > 1 / 3
