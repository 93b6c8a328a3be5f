"""The level of the controls bends effects as far as contexts show it, and no further."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celldit.conditions import Condition, ConditionTable
from celldit.effects import EffectPrior
from celldit.effects.contexts.level import Level, fit_slope
from celldit.effects.fit_prior import fit_prior, joined
from celldit.effects.storage import prior_arrays, prior_config, prior_from

N_DIMS = 24
# The first dimensions of a latent hold most of what differs.
DECAY_F = np.exp(-np.arange(N_DIMS) / 6)


class Patients(NamedTuple):
    """Cells of contexts that start at different levels, and the true shift of each condition."""

    z: np.ndarray
    table: ConditionTable
    truth: dict[Condition, np.ndarray]

    def without(self, *gone: Condition) -> tuple[np.ndarray, ConditionTable]:
        """The cells but those of some conditions."""
        rows = [self.table.conditions.index(c) for c in gone]
        kept = ~np.isin(self.table.index, rows)
        names = [i for i in range(len(self.table)) if i not in rows]
        index = np.searchsorted(names, self.table.index[kept])
        return self.z[kept], ConditionTable(tuple(self.table.conditions[i] for i in names), index)


def patients(
    slope: float,
    seed: int = 0,
    n: int = 100,
    contexts: int = 6,
    own: float = 0.3,
    doses: tuple[float, ...] = (),
) -> Patients:
    """Patients under one drug, each of whom answers it in a way of his own besides."""
    rng = np.random.default_rng(seed)
    common_F = 2 * rng.normal(size=N_DIMS) * DECAY_F
    levels_SF = 1.5 * rng.normal(size=(contexts, N_DIMS)) * DECAY_F
    levels_SF -= levels_SF.mean(axis=0)
    truth: dict[Condition, np.ndarray] = {}
    start: dict[Condition, np.ndarray] = {}
    for s, level_F in enumerate(levels_SF):
        whole_F = common_F - slope * level_F + own * rng.normal(size=N_DIMS) * DECAY_F
        start[Condition((), None, f"p{s}")] = level_F
        for dose in doses or (None,):
            share = 1.0 if dose is None else np.log2(1 + dose) / np.log2(1 + max(doses))
            condition = Condition(("drug",), None if dose is None else (dose,), f"p{s}")
            start[condition], truth[condition] = level_F, share * whole_F
    conditions = tuple(start)
    index = np.repeat(np.arange(len(conditions)), n)
    where = np.array([start[c] + truth.get(c, np.zeros(N_DIMS)) for c in conditions])
    z = where[index] + rng.normal(size=(len(index), N_DIMS))
    return Patients(z, ConditionTable(conditions, index), truth)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """Squared error over the squared effect."""
    return float(((found - truth) ** 2).sum() / (truth**2).sum())


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("n", [12, 100])
def test_the_slope_is_found(slope: float, n: int) -> None:
    """With a dozen cells noise alone would make a slope: it is in both effect and level."""
    found = [fit_prior(*patients(slope, s, n)[:2]).level.slope for s in range(3)]
    assert np.mean(found) == pytest.approx(slope, abs=0.1)


@pytest.mark.parametrize("contexts", [4, 5, 6])
def test_few_patients_and_one_drug_are_enough(contexts: int) -> None:
    """Each seed holds out the drug in one patient, whose controls stay."""
    asked = Condition(("drug",), None, "p0")
    slopes, errors = [], []
    for seed in range(6):
        made = patients(0.5, seed, contexts=contexts, own=0.6)
        prior = fit_prior(*made.without(asked))
        others = [made.truth[c] for c in prior.conditions]
        slopes.append(prior.level.slope)
        (mean,) = prior.estimate([asked]).mean
        errors.append(
            [error(guess, made.truth[asked]) for guess in (mean, np.mean(others, axis=0))]
        )
    assert np.mean(slopes) == pytest.approx(0.5, abs=0.15)
    model, shift = np.mean(errors, axis=0)
    assert model < 0.85 * shift


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.7])
def test_never_much_worse_than_the_better_of_shift_and_level(slope: float) -> None:
    asked = Condition(("drug",), None, "p0")
    errors = []
    for seed in range(6):
        made = patients(slope, seed)
        prior = fit_prior(*made.without(asked))
        shift_F = prior.shifts.mean(axis=0) @ np.linalg.inv(prior.rotation)
        at = prior.kernel.positions
        centre_F = np.mean([at[c.stratum] for c in prior.conditions], axis=0)
        level_F = shift_F - (at[asked.stratum] - centre_F)
        (mean,) = prior.estimate([asked]).mean
        errors.append([error(guess, made.truth[asked]) for guess in (mean, shift_F, level_F)])
    model, shift, level = np.mean(errors, axis=0)
    assert model < 1.05 * min(shift, level)


def test_noise_of_controls_is_no_slope() -> None:
    """Patients who do not differ at all: the naive slope of shift on level is -1."""
    rng = np.random.default_rng(0)
    conditions = tuple(Condition(p, None, f"p{s}") for s in range(8) for p in ((), ("drug",)))
    index = np.repeat(np.arange(len(conditions)), 10)
    z = rng.normal(size=(len(index), N_DIMS))
    prior = fit_prior(z, ConditionTable(conditions, index))
    levels_CF = np.array([prior.kernel.positions[c.stratum] for c in prior.conditions])
    naive = np.polyfit((levels_CF @ prior.rotation).ravel(), prior.shifts.ravel(), 1)[0]
    assert naive < -0.5
    assert prior.level.slope == 0


def test_small_slopes_are_none() -> None:
    """What a slope of .05 gains in the contexts of training is lost in others."""
    assert fit_prior(*patients(0.05, contexts=9, own=0.1)[:2]).level.slope == 0


def test_leaving_one_out_leaves_its_level_in() -> None:
    made = patients(0.5)
    prior = fit_prior(made.z, made.table)
    assert prior.level.slope > 0
    assert prior.level.sd > 0
    shortcut = prior.leave_one_out()
    again = prior.estimate_without(prior.conditions, np.arange(len(prior.conditions)))
    for i, condition in enumerate(prior.conditions):
        refit = prior.without([condition]).estimate([condition])
        for one in (shortcut, again):
            np.testing.assert_allclose(one.mean[i], refit.mean[0], atol=1e-8)
            np.testing.assert_allclose(one.variance[i], refit.variance[0], atol=1e-8)


def test_a_new_context_is_bent_by_its_own_level() -> None:
    made = patients(0.7)
    asked = Condition(("drug",), None, "p0")
    prior = fit_prior(*made.without(Condition((), None, "p0"), asked))
    own = made.table.index == made.table.conditions.index(Condition((), None, "p0"))
    at = {("p0", None): made.z[own].mean(axis=0)}
    (mean,) = prior.estimate([asked], at).mean
    (flat,) = replace(prior, level=Level()).estimate([asked], at).mean
    assert error(mean, made.truth[asked]) < 0.5 * error(flat, made.truth[asked])


@pytest.fixture(scope="module")
def bent() -> EffectPrior:
    """A prior with a slope."""
    return fit_prior(*patients(0.5)[:2])


def at_step(prior: EffectPrior, step: float) -> dict[tuple[str, None], np.ndarray]:
    """A new context whose controls lie this far above the mean, in every dimension."""
    return {("new", None): prior.level.centre_F + step}


@given(step=st.floats(-3, 3))
def test_effects_fall_by_the_slope_as_levels_rise(bent: EffectPrior, step: float) -> None:
    """Beside what the kernel says of contexts that lie apart, which is the same without a slope."""
    asked = [Condition(("drug",), None, "new"), Condition((), None, "new")]
    flat = replace(bent, level=replace(bent.level, slope=0.0), shifts=bent.observed.shifts_CF)
    drug_F, control_F = (
        bent.estimate(asked, at_step(bent, step)).mean
        - flat.estimate(asked, at_step(bent, step)).mean
    )
    np.testing.assert_allclose(drug_F, -bent.level.slope * step * np.ones(N_DIMS), atol=1e-7)
    np.testing.assert_allclose(control_F, 0, atol=1e-12)


def test_doubt_of_the_slope_counts_where_levels_are_far(bent: EffectPrior) -> None:
    asked = [Condition(("drug",), None, "new")]
    sure = replace(bent, level=replace(bent.level, sd=0.0))
    more = [
        (bent.estimate(asked, at_step(bent, step)).variance
         - sure.estimate(asked, at_step(bent, step)).variance).mean()
        for step in (0.0, 3.0, 6.0)
    ]  # fmt: skip
    assert more[0] == pytest.approx(0, abs=1e-2)
    assert more[0] < more[1] < more[2]


def test_a_low_dose_is_bent_less() -> None:
    made = patients(0.8, doses=(1.0, 3.0, 15.0), n=200)
    prior = fit_prior(made.z, made.table)
    assert prior.level.slope == pytest.approx(0.8, abs=0.15)
    low, high = (prior.level_means([Condition(("drug",), (d,), "p0")]) for d in (1.0, 15.0))
    np.testing.assert_allclose(low, high / 4)
    for condition in prior.conditions:
        (mean,) = prior.without([condition]).estimate([condition]).mean
        assert error(mean, made.truth[condition]) < 0.5


def test_times_of_one_context_are_levels_too() -> None:
    rng = np.random.default_rng(1)
    conditions, means = [], []
    common_F = 2 * rng.normal(size=N_DIMS) * DECAY_F
    levels_TF = 1.5 * rng.normal(size=(6, N_DIMS)) * DECAY_F
    for t, level_F in enumerate(levels_TF):
        for parts in ((), ("drug",)):
            conditions.append(Condition(parts, None, "", float(t)))
            moved_F = common_F - 0.6 * (level_F - levels_TF.mean(axis=0))
            means.append(level_F + len(parts) * moved_F)
    index = np.repeat(np.arange(len(conditions)), 80)
    z = np.array(means)[index] + rng.normal(size=(len(index), N_DIMS))
    prior = fit_prior(z, ConditionTable(tuple(conditions), index))
    assert prior.level.slope == pytest.approx(0.6, abs=0.15)


def test_two_contexts_tell_no_slope() -> None:
    assert fit_prior(*patients(0.7, contexts=2)[:2]).level.slope == 0


def test_contexts_without_controls_tell_no_slope() -> None:
    """Their level is that of other contexts, and what they differ by is in the shift alone."""
    made = patients(0.7, contexts=6)
    gone = [Condition((), None, f"p{s}") for s in range(4)]
    prior = fit_prior(*made.without(*gone))
    assert set(prior.control_cells) == {("p4", None), ("p5", None)}
    assert prior.level.slope == 0


def test_slopes_that_contradict_each_other_are_none() -> None:
    """Half of the contexts bend one way, half the other."""
    rng = np.random.default_rng(0)
    levels_CF = rng.normal(size=(8, N_DIMS))
    signs_C1 = np.array([1.0, -1.0] * 4)[:, None]
    groups = [np.array([i]) for i in range(8)]
    found = fit_slope(
        np.eye(8), signs_C1 * levels_CF, levels_CF, np.ones(8), np.zeros((8, 1)), groups
    )
    assert found == (0.0, 0.0)


@given(seed=st.integers(0, 1000), slope=st.floats(0.05, 1.0))
def test_an_exact_slope_is_found_exactly(seed: int, slope: float) -> None:
    levels_CF = np.random.default_rng(seed).normal(size=(5, N_DIMS))
    groups = [np.array([i]) for i in range(5)]
    open_CC = np.linalg.inv(np.eye(5) + 1e6)
    found, sd = fit_slope(
        open_CC, 3 - slope * levels_CF, levels_CF, np.ones(5), np.zeros((5, 1)), groups
    )
    assert found == pytest.approx(slope, abs=1e-3)
    assert sd < 1e-3


def test_a_second_training_finds_the_slope_of_both() -> None:
    """Three patients each; neither set alone is what the slope is fitted on in the end."""
    made = patients(0.6)
    sides = [[c for c in made.table.conditions if (c.context in ("p0", "p1", "p2")) == first]
             for first in (True, False)]  # fmt: skip
    first, second = (fit_prior(*made.without(*gone)) for gone in reversed(sides))
    both = joined(second, first)
    assert len(both.control_cells) == 6
    assert both.level.slope == pytest.approx(0.6, abs=0.1)


def test_it_is_saved(bent: EffectPrior) -> None:
    config = json.loads(json.dumps(prior_config(bent)))
    again = prior_from(config, prior_arrays(bent))
    assert again.control_cells == bent.control_cells
    asked = [*bent.conditions, Condition(("drug",), None, "new")]
    one, two = (each.estimate(asked, at_step(bent, 1.0)) for each in (bent, again))
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.variance, two.variance)


def test_models_saved_before_there_were_levels_have_none(bent: EffectPrior) -> None:
    config, arrays = prior_config(bent), prior_arrays(bent)
    del config["level"], arrays["level_centre"], arrays["control_cells"]
    again = prior_from(config, arrays)
    assert again.level.slope == 0
    assert again.control_cells == {}
    found = again.estimate(bent.conditions)
    flat = replace(bent, level=Level()).estimate(bent.conditions)
    np.testing.assert_array_equal(found.mean, flat.mean)
