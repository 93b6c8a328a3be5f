"""What a stratum's controls are off by is no effect of what was done there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import multivariate_normal

from celldit.conditions.condition import Condition, ConditionTable
from celldit.effects.fit_prior import fit_prior
from celldit.effects.posterior import Observed
from celldit.effects.prior import EffectPrior
from celldit.effects.shared_noise import SharedNoise
from celldit.effects.storage import prior_arrays, prior_config, prior_from

N, DIMS = 12, 3


class Written:
    """Twelve shifts in three strata, of which one shares no noise, with every matrix at hand."""

    def __init__(self, seed: int, in_blocks: bool) -> None:
        rng = np.random.default_rng(seed)
        root_CR, self.totals_C = rng.normal(size=(N, 4)), rng.random(N)
        self.kernel_CC = root_CR @ root_CR.T + 0.2 * np.eye(N)
        self.group_C = np.concatenate([[0, 0, 1, 1, 2, 2], rng.integers(0, 3, N - 6)])
        self.variance_C = np.array([0.3, 0.0, 0.5])[self.group_C]
        number = {("first", None): 0, ("third", None): 2}
        self.shared = SharedNoise(self.group_C, self.variance_C, number)
        self.noise_C = self.variance_C + 0.1 + rng.random(N)
        self.shifts_CF, self.column_CF = rng.normal(size=(2, N, DIMS))
        self.signal_F, self.common_F = rng.random((2, DIMS))
        own = sparse.csr_matrix(0.2 * np.eye(N)) if in_blocks else self.kernel_CC
        columns_CR = root_CR if in_blocks else None
        shifts = self.shifts_CF, self.noise_C, self.totals_C
        self.observed = Observed(
            *shifts, own, self.signal_F, self.common_F, [self.column_CF], columns_CR, self.shared
        )

    def noise_CC(self) -> np.ndarray:
        together_CC = self.group_C[:, None] == self.group_C
        own_CC = np.diag(self.noise_C - self.variance_C)
        return own_CC + together_CC * self.variance_C

    def effects_CC(self, k: int) -> np.ndarray:
        found_CC = self.signal_F[k] * self.kernel_CC
        for a, h_C in ((self.common_F[k], self.totals_C), (1.0, self.column_CF[:, k])):
            found_CC = found_CC + a * np.outer(h_C, h_C)
        return found_CC


@given(st.integers(0, 10_000), st.booleans())
def test_leaving_one_out_is_written_out(seed: int, in_blocks: bool) -> None:
    made = Written(seed, in_blocks)
    mean_CF, variance_CF = made.observed.leave_one_out()
    noise_CF = made.observed.noise(made.group_C, np.arange(N))
    for k in range(DIMS):
        effects_CC = made.effects_CC(k)
        total_CC = effects_CC + made.noise_CC()
        for c in range(N):
            rest = np.delete(np.arange(N), c)
            inverse = np.linalg.inv(total_CC[np.ix_(rest, rest)])
            across = effects_CC[c, rest]
            of_noise = made.noise_CC()[c, rest]
            y = made.shifts_CF[rest, k]
            np.testing.assert_allclose(mean_CF[c, k], across @ inverse @ y, atol=1e-7)
            np.testing.assert_allclose(noise_CF[c, k], of_noise @ inverse @ y, atol=1e-7)
            left = effects_CC[c, c] - across @ inverse @ across
            np.testing.assert_allclose(variance_CF[c, k], left, atol=1e-7)


@given(st.integers(0, 10_000), st.booleans())
def test_noise_and_likelihood_are_those_of_the_normal_distribution(
    seed: int, in_blocks: bool
) -> None:
    made = Written(seed, in_blocks)
    noise_QF = made.observed.noise(np.array([0, 1, 2, -1]))
    for k in range(DIMS):
        solved = np.linalg.solve(made.effects_CC(k) + made.noise_CC(), made.shifts_CF[:, k])
        for group in (0, 2):
            shared = np.where(made.group_C == group, made.variance_C, 0.0)
            np.testing.assert_allclose(noise_QF[group, k], shared @ solved, atol=1e-8)
    assert (noise_QF[[1, 3]] == 0).all()
    found_LF = replace(made.observed, further=()).log_likelihoods([0.5, 2.0], [0.1, 1.0])
    densities = []
    for signal, common in ((0.5, 0.1), (2.0, 1.0)):
        total_CC = signal * made.kernel_CC + common * np.outer(made.totals_C, made.totals_C)
        density = multivariate_normal(cov=total_CC + made.noise_CC())
        densities.append(density.logpdf(made.shifts_CF.T))
    expected_F = densities[0] - densities[1]
    np.testing.assert_allclose(found_LF[0] - found_LF[1], expected_F, atol=1e-7)


def test_the_noise_of_one_condition_alone_is_its_own() -> None:
    conditions = [Condition(("A",), None, "x"), Condition(("B",), None, "x"), Condition(("A",))]
    shared = SharedNoise.of(conditions, {("x", None): 0.2, ("", None): 0.1})
    np.testing.assert_array_equal(shared.variance_C, [0.2, 0.2, 0.0])
    assert list(shared.number) == [("x", None)]
    asked = [Condition(("B",), None, "x"), Condition((), None, "x"), Condition(("B",), None, "y")]
    np.testing.assert_array_equal(shared.groups_of(asked), [0, -1, -1])


def screen(effect: float, seed: int = 0) -> tuple[EffectPrior, np.ndarray, np.ndarray]:
    """Thirty perturbations of 40 cells that all do `effect` or nothing, beside ten controls."""
    rng = np.random.default_rng(seed)
    conditions = [Condition(), *(Condition((f"P{i}",)) for i in range(30))]
    index = np.repeat(np.arange(31), [10] + [40] * 30)
    truth_F = effect * np.array([1.0, -1.0, 0.5, 0.0])
    z = rng.normal(size=(len(index), 4)) + (index > 0)[:, None] * truth_F
    table = ConditionTable(tuple(conditions), index)
    return fit_prior(z, table), truth_F, z[index == 0].mean(axis=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_nothing_happens_nothing_is_predicted(seed: int) -> None:
    """All conditions differ from the ten controls by what these are off by."""
    prior, _, off_F = screen(0.0, seed)
    asked = [*prior.conditions[:5], Condition(("never seen",))]
    effects, shifts = prior.of_effects.estimate(asked), prior.estimate(asked)
    size = float(np.linalg.norm(off_F))
    assert np.linalg.norm(effects.mean, axis=1).max() < 0.4 * size
    # Cells that are measured beside these controls will differ from them all the same.
    assert np.linalg.norm(shifts.mean + off_F, axis=1).max() < 0.5 * size
    left_out = prior.of_effects.leave_one_out().mean
    assert np.linalg.norm(left_out, axis=1).max() < 0.4 * size


def test_an_effect_that_all_share_is_found_all_the_same() -> None:
    prior, truth_F, _ = screen(3.0)
    found = prior.of_effects.estimate([prior.conditions[0]])
    assert np.linalg.norm(found.mean[0] - truth_F) < 0.2 * np.linalg.norm(truth_F)


def test_the_doubt_holds_what_controls_may_be_off_by() -> None:
    """An effect that all share is known no better than the controls."""
    prior, *_ = screen(3.0)
    of_ten = prior.of_effects.estimate([prior.conditions[0]]).variance[0]
    shared = int(np.argmax(prior.common))
    assert of_ten[shared] > 0.5 / 10


def test_it_is_saved_and_models_without_it_say_what_they_said() -> None:
    prior, *_ = screen(1.0)
    asked = [prior.conditions[3], Condition(("new",))]
    again = prior_from(prior_config(prior), prior_arrays(prior))
    for one, two in ((prior, again), (prior.of_effects, again.of_effects)):
        np.testing.assert_allclose(one.estimate(asked).mean, two.estimate(asked).mean, rtol=1e-12)
    arrays = prior_arrays(prior)
    del arrays["control_noise"]
    old = prior_from(prior_config(prior), arrays)
    assert not old.control_noise
    np.testing.assert_array_equal(old.estimate(asked).mean, old.of_effects.estimate(asked).mean)


def test_of_hundreds_of_conditions_in_many_strata_noise_is_independent() -> None:
    """Every stratum would be one more column in every product."""
    rng = np.random.default_rng(0)
    conditions = [
        Condition((f"P{i}",) if i else (), None, f"b{b}") for b in range(14) for i in range(16)
    ]
    index = np.repeat(np.arange(len(conditions)), 5)
    many = fit_prior(rng.normal(size=(len(index), 4)), ConditionTable(tuple(conditions), index))
    assert not many.control_noise
    few = [c for c in conditions if c.context in ("b0", "b1")]
    some = fit_prior(rng.normal(size=(32 * 5, 4)), ConditionTable(tuple(few), index[: 32 * 5]))
    assert len(some.control_noise) == 2


def test_effects_and_shifts_share_one_decomposition() -> None:
    prior, *_ = screen(1.0)
    assert prior.of_effects.observed is prior.observed
    assert prior.of_effects.of_effects is prior.of_effects
