"""Strata without controls: their baseline comes from what they share with others, or stays open."""

from __future__ import annotations

import json
import string
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.population import Population
from celldit.effects.contexts.baseline import Baselines, variance_between, warn_without_controls
from celldit.effects.fit_prior import fit_prior, joined
from celldit.effects.prior import EffectPrior
from celldit.effects.storage import prior_arrays, prior_config, prior_from

N_DIMS = 12
NAMES = string.ascii_letters[:24]
OTHERS = string.ascii_letters[24:40]


@cache
def batches(
    differ: float, *, shared: bool = True, controls: int = 0, elsewhere: int = 100, seed: int = 0
) -> tuple[np.ndarray, ConditionTable, dict[str, np.ndarray], np.ndarray]:
    """Three batches, of which the second has few controls or none; effects, and its baseline.

    The others have `elsewhere` controls.
    """
    rng = np.random.default_rng(seed)
    effects = {
        name: rng.normal(size=N_DIMS) * (rng.random(N_DIMS) < 0.4) for name in (*NAMES, *OTHERS)
    }
    sizes: dict[Condition, int] = {}
    for b in range(3):
        own = NAMES if b != 1 or shared else OTHERS
        if b != 1 or controls:
            sizes[Condition((), None, f"b{b}")] = controls if b == 1 else elsewhere
        sizes |= {Condition((name,), None, f"b{b}"): 80 for name in own}
    base = {f"b{b}": differ * rng.normal(size=N_DIMS) for b in range(3)}
    index = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    means = np.array([
        base[c.context] + sum((effects[p] for p in c.parts), np.zeros(N_DIMS)) for c in sizes
    ])  # fmt: skip
    z = means[index] + rng.normal(size=(len(index), N_DIMS))
    return z, ConditionTable(tuple(sizes), index), effects, base["b1"]


@cache
def fitted(differ: float, **how: bool | int) -> EffectPrior:
    """The effect model of these batches, fitted once for all tests."""
    return fit_prior(*batches(differ, **how)[:2])


def scaled_errors(differ: float, **how: bool | int) -> np.ndarray:
    """Errors of effects in the batch without controls over their standard deviation."""
    found = []
    for seed in range(4):
        effects = batches(differ, seed=seed, **how)[2]
        prior = fitted(differ, seed=seed, **how)
        asked = [c for c in prior.conditions if c.context == "b1"]
        estimate = prior.estimate(asked)
        truth = np.array([effects[c.parts[0]] for c in asked])
        found.append((estimate.mean - truth) @ prior.rotation / np.sqrt(estimate.variance))
    return np.concatenate(found)


@pytest.mark.parametrize("differ", [0.3, 1.5])
@pytest.mark.parametrize("shared", [True, False])
def test_intervals_hold_without_controls(differ: float, shared: bool) -> None:
    errors = scaled_errors(differ, shared=shared)
    assert (np.abs(errors) < 1.645).mean() > 0.85
    assert 0.4 < np.sqrt((errors**2).mean()) < 1.2


def test_shared_perturbations_tell_the_baseline() -> None:
    _, _, effects, base_F = batches(1.5)
    prior = fitted(1.5)
    at_F = prior.kernel.positions["b1", None]
    assert ((at_F - base_F) ** 2).mean() < 0.05 * (base_F**2).mean()
    asked = [Condition((name,), None, "b1") for name in NAMES]
    truth = np.array([effects[c.parts[0]] for c in asked])
    error = ((prior.estimate(asked).mean - truth) ** 2).mean()
    assert error < 0.1 * (base_F**2).mean()


def test_where_cells_are_expected_does_not_change() -> None:
    """Baseline and effect together are what was measured, whatever each of them is."""
    z, table, _, _ = batches(1.5)
    population = Population.fit(z, table, fitted(1.5))
    asked = [Condition((name,), None, "b1") for name in NAMES]
    rows = [table.conditions.index(c) for c in asked]
    means = np.array([z[table.index == row].mean(axis=0) for row in rows])
    np.testing.assert_allclose(population.estimate(asked).position, means, atol=0.4)


def test_pairs_start_where_own_controls_would_lie() -> None:
    z, table, _, base_F = batches(1.5)
    population = Population.fit(z, table, fitted(1.5))
    offset_CF = population.offset(table)
    others = [Condition((), None, b) for b in ("b0", "b2")]
    stand_in_F = np.mean(
        [z[table.index == table.conditions.index(c)].mean(axis=0) for c in others], axis=0
    )
    for condition, offset_F in zip(table.conditions, offset_CF, strict=True):
        expected_F = base_F - stand_in_F if condition.context == "b1" else np.zeros(N_DIMS)
        np.testing.assert_allclose(offset_F, expected_F, atol=0.5)
    with_controls = fitted(1.5, controls=50)
    population = Population.fit(z[:1], replace(table, index=table.index[:1]), with_controls)
    assert population.offset(batches(1.5, controls=50)[1]) is None


def test_what_is_shared_with_nothing_stays_in_doubt() -> None:
    prior = fitted(1.5, shared=False, elsewhere=400)
    without, with_controls = prior.estimate(
        [Condition((OTHERS[0],), None, "b1"), Condition((NAMES[0],), None, "b0")]
    ).sd
    assert without > 2 * with_controls


def test_doubt_is_as_large_as_errors_with_and_without_controls() -> None:
    """Noise of controls that was taken for independent made errors 1.5 times as large."""
    ratios: dict[str, list[float]] = {"b0": [], "b1": []}
    for seed in range(12):
        prior = fitted(1.5, shared=False, seed=seed).of_effects
        effects = batches(1.5, shared=False, seed=seed)[2]
        for context, names in (("b0", NAMES), ("b1", OTHERS)):
            found = prior.estimate([Condition((name,), None, context) for name in names])
            error = found.mean - np.array([effects[name] for name in names])
            squared = ((error @ prior.rotation) ** 2).mean()
            ratios[context].append(float(squared / found.variance.mean()))
    for of_context in ratios.values():
        assert 0.75 < np.mean(of_context) < 1.25


def test_a_few_controls_tell_more_the_more_there_are() -> None:
    doubts, shares = [], []
    for controls in (0, 1, 2, 4, 40):
        prior = fitted(1.5, shared=False, controls=controls)
        shares.append(prior.baselines.borrowed.get(("b1", None), 0.0))
        doubts.append(prior.estimate([Condition((OTHERS[0],), None, "b1")]).sd[0])
    np.testing.assert_allclose(shares, [1, 0.8, 0.6, 0.2, 0])
    # How far strata seem to differ is learned anew each time, and moves a little.
    assert np.diff(doubts).max() < 0.03
    assert doubts[-1] < 0.8 * doubts[0]


def test_leaving_one_out_is_an_explicit_refit() -> None:
    """Where the stratum starts is no part of the effect there, either."""
    prior = fitted(1.5)
    shortcut = prior.leave_one_out()
    for i, condition in enumerate(prior.conditions):
        refit = prior.without([condition]).estimate([condition])
        np.testing.assert_allclose(shortcut.mean[i], refit.mean[0], atol=1e-8)
        np.testing.assert_allclose(shortcut.variance[i], refit.variance[0], atol=1e-8)


def test_batches_with_controls_have_no_open_baseline() -> None:
    prior = fitted(1.5, controls=50)
    assert prior.baselines.borrowed == {}
    assert not any(name.startswith("baseline") for name in prior_arrays(prior))


def test_how_much_batches_differ() -> None:
    z, table, _, _ = batches(1.5, controls=50)
    means = np.array([z[table.index == i].mean(axis=0) for i in range(len(table))])
    found_F = variance_between(means, table.counts, table.conditions)
    assert found_F is not None
    assert 0.3 < found_F.mean() / 1.5**2 < 3
    apart = tuple(Condition((f"{i}",), None, c.context) for i, c in enumerate(table.conditions))
    assert variance_between(means, table.counts, apart) is None


def test_a_second_training_keeps_what_is_not_known() -> None:
    z, _, effects, base_F = batches(1.5)
    earlier = fitted(1.5)
    z2, table2, _, _ = batches(1.5, controls=50, seed=3)
    other = tuple(replace(c, context=f"new {c.context}") for c in table2.conditions)
    later = fit_prior(z2, ConditionTable(other, table2.index))
    both = joined(later, earlier)
    assert set(both.baselines.borrowed) == {("b1", None)}
    asked = [Condition((name,), None, "b1") for name in NAMES]
    truth = np.array([effects[c.parts[0]] for c in asked])
    assert ((both.estimate(asked).mean - truth) ** 2).mean() < 0.1 * (base_F**2).mean()
    alone = fit_prior(z[:9], ConditionTable((Condition((), None, "b0"),), np.zeros(9, int)))
    assert set(joined(alone, earlier).baselines.borrowed) == {("b1", None)}


def test_the_user_is_told() -> None:
    with pytest.warns(UserWarning, match=r"1 context has fewer than 5 control.*'?b2'?"):
        warn_without_controls({("b2", None): 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_without_controls({})


def test_it_is_saved() -> None:
    prior = fitted(1.5)
    again = prior_from(json.loads(json.dumps(prior_config(prior))), prior_arrays(prior))
    assert again.baselines.borrowed == prior.baselines.borrowed == {("b1", None): 1.0}
    one, two = (each.estimate(prior.conditions) for each in (prior, again))
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.variance, two.variance)
    for key, offset_F in prior.baselines.offsets.items():
        np.testing.assert_array_equal(again.baselines.offsets[key], offset_F)


def test_models_saved_before_have_none() -> None:
    prior = fitted(1.5)
    config, arrays = prior_config(prior), prior_arrays(prior)
    del config["borrowed"], arrays["baseline_offsets"], arrays["baseline_variance"]
    again = prior_from(config, arrays)
    assert again.baselines.borrowed == {}
    plain = replace(prior, baselines=Baselines()).estimate(prior.conditions)
    np.testing.assert_array_equal(again.estimate(prior.conditions).mean, plain.mean)
