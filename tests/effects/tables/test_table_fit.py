from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from celldit.conditions import Condition
from celldit.effects import EffectPrior
from celldit.effects.experiments import joint_covariance
from celldit.effects.fit_prior import fit_prior
from celldit.effects.tables.elsewhere import UNLEARNED, Elsewhere, TableEffects, warn_of_tables
from celldit.effects.tables.fit import MOST_AMPLITUDE, _Fit, believed, left_out
from celldit.effects.tables.informed import with_tables

NAMES = "ABCDEFGHIJKL"
SHARED = NAMES[:8]


@pytest.fixture(scope="module")
def fitted(world: Callable[..., Any]) -> tuple[EffectPrior, dict[str, np.ndarray]]:
    """A prior of eight perturbations, and the effects of these and of four others."""
    conditions = [Condition(), *(Condition((name,)) for name in NAMES)]
    every = world(conditions, n_cells=200, n_dims=5, size=1.5)
    keep = every.table.index <= len(SHARED)
    table = replace(
        every.table, conditions=every.table.conditions[: 1 + len(SHARED)],
        index=every.table.index[keep],
    )  # fmt: skip
    return fit_prior(every.z[keep], table), every.effects


def table(
    effects: dict[str, np.ndarray], names: str = NAMES, times: float = 1.0, name: str = "t"
) -> TableEffects:
    means = np.array([times * effects[name] for name in names])
    return TableEffects(name, tuple((name,) for name in names), means, *np.zeros((2, 5)))


def error(prior: EffectPrior, effects: dict[str, np.ndarray]) -> float:
    """Squared error of perturbations that only the table has, over their squared effect."""
    asked = NAMES[len(SHARED) :]
    found = prior.estimate([Condition((name,)) for name in asked]).mean
    truth = np.array([effects[name] for name in asked])
    return float(((found - truth) ** 2).sum() / (truth**2).sum())


def test_errors_of_leaving_out_are_those_of_a_prior_without(fitted: Any) -> None:
    prior = fitted[0].of_unseen
    out = left_out(prior, [("A",), ("D",)])
    for g, name in enumerate("AD"):
        condition = Condition((name,))
        row = prior.conditions.index(condition)
        rest = prior.without([condition]).of_unseen
        predicted = rest.estimate([condition]).mean[0] @ prior.rotation
        np.testing.assert_allclose(out.error_GF[g], prior.shifts[row] - predicted, atol=1e-8)
    np.testing.assert_allclose(out.of(prior.shifts), out.error_GF, atol=1e-10)


@pytest.mark.parametrize("times", [1.0, 0.5, 2.0])
def test_a_good_table_is_used_whatever_its_amplitude(fitted: Any, times: float) -> None:
    prior, effects = fitted
    informed = with_tables(prior, [table(effects, times=times)], 0)
    (found,) = informed.elsewhere.used
    assert found.amplitude == pytest.approx(1 / times, rel=0.1)
    assert found.reliability > 0.95
    assert found.share < 0.5
    assert found.shared == tuple((name,) for name in SHARED)
    assert error(informed, effects) < 0.05 < 0.8 < error(prior, effects)
    warn_of_tables(informed.elsewhere)


def test_effects_together_are_those_of_single_estimates_with_a_table(fitted: Any) -> None:
    """The covariance of candidates that a table knows holds what the table leaves open."""
    prior, effects = fitted
    informed = with_tables(prior, [table(effects)], 0).of_unseen
    asked = [Condition((name,)) for name in NAMES[len(SHARED) :]]
    variance_QF = np.diagonal(joint_covariance(informed, asked), axis1=1, axis2=2).T
    np.testing.assert_allclose(variance_QF, informed.estimate(asked).variance, atol=1e-8)


def test_doubt_of_what_a_table_knows_is_less_and_holds_the_error(fitted: Any) -> None:
    prior, effects = fitted
    informed = with_tables(prior, [table(effects)], 0)
    asked = [Condition((name,)) for name in NAMES[len(SHARED) :]]
    estimate, before = informed.estimate(asked), prior.estimate(asked)
    assert (estimate.sd < before.sd).all()
    truth = np.array([effects[name] for name in NAMES[len(SHARED) :]])
    missed = (truth - estimate.mean) @ np.linalg.inv(estimate.basis)
    assert np.mean(missed**2 / estimate.variance) < 2


def test_what_was_measured_here_stays(fitted: Any) -> None:
    prior, effects = fitted
    informed = with_tables(prior, [table(effects)], 0)
    seen = [Condition((name,)) for name in SHARED]
    np.testing.assert_allclose(informed.estimate(seen).mean, prior.estimate(seen).mean, atol=0.1)


def test_a_shuffled_table_changes_nothing(fitted: Any) -> None:
    prior, effects = fitted
    order = np.random.default_rng(1).permutation(len(NAMES))
    given = table(effects)
    informed = with_tables(prior, [replace(given, means_PF=given.means_PF[order])], 0)
    assert not informed.elsewhere.used
    asked = [Condition((name,)) for name in NAMES]
    np.testing.assert_array_equal(informed.estimate(asked).mean, prior.estimate(asked).mean)
    with pytest.warns(UserWarning, match="does not help"):
        warn_of_tables(informed.elsewhere)


def test_a_table_that_contradicts_is_named(fitted: Any) -> None:
    prior, effects = fitted
    informed = with_tables(prior, [table(effects, times=-1.0)], 0)
    assert not informed.elsewhere.used
    assert informed.elsewhere.tables[0].contradicts == pytest.approx(-1, abs=0.2)
    with pytest.warns(UserWarning, match="contradicts the data"):
        warn_of_tables(informed.elsewhere)


def test_the_better_of_two_is_used(fitted: Any) -> None:
    prior, effects = fitted
    rng = np.random.default_rng(2)
    noisy = {name: effect + 1.5 * rng.normal(size=5) for name, effect in effects.items()}
    both = [table(noisy, name="noisy"), table(effects, name="good")]
    informed = with_tables(prior, both, 0)
    weight = {t.name: t.amplitude for t in informed.elsewhere.tables}
    assert weight["good"] > 0.8 > 0.2 > weight["noisy"]
    assert error(informed, effects) < 0.05


def test_a_table_that_shares_nothing_is_used_with_doubt(fitted: Any) -> None:
    prior, effects = fitted
    elsewhere = believed(prior, [table(effects, NAMES[len(SHARED) :])])
    (found,) = elsewhere.used
    assert (found.amplitude, found.sd, found.share) == UNLEARNED
    with pytest.warns(UserWarning, match="shares no perturbation"):
        warn_of_tables(elsewhere)


def test_combinations(fitted: Any) -> None:
    _, effects = fitted
    means = np.array([effects["A"], effects["B"], 3 * effects["C"]])
    own = TableEffects("t", (("A",), ("B",), ("A", "B")), means, *np.zeros((2, 5)))
    pair, other = Condition(("A", "B")), Condition(("A", "C"))
    found = own.means([pair, other], [[1.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(found, [means[2], means[0]])
    assert own.holds(("A", "B"))
    assert not own.holds(("A", "C"))


def test_storage(fitted: Any) -> None:
    prior, effects = fitted
    elsewhere = with_tables(
        prior, [replace(table(effects), provenance={"licence": "CC0"})], 0
    ).elsewhere
    again = Elsewhere.from_config(elsewhere.to_config(), elsewhere.arrays())
    assert again.to_config() == elsewhere.to_config()
    assert again.provenance == elsewhere.provenance
    assert ("L",) in again
    assert ("Z",) not in again
    broken = {**elsewhere.arrays(), "table_0.means": np.zeros((2, 5))}
    with pytest.raises(ValueError, match="fits neither"):
        Elsewhere.from_config(elsewhere.to_config(), broken)


def few(
    effects: dict[str, np.ndarray], shared: str, noise: np.random.Generator | None = None
) -> TableEffects:
    """A table that shares some perturbations only, of what they do or of noise."""
    names = shared + NAMES[len(SHARED) :]
    size = np.std([*effects.values()])
    made = effects if noise is None else {n: size * noise.normal(size=5) for n in names}
    return table(made, names)


@pytest.mark.parametrize("shared", ["AB", "CD", "EFG", "BDH"])
def test_noise_is_not_used_where_few_perturbations_are_shared(fitted: Any, shared: str) -> None:
    prior, effects = fitted
    seeds = range(20)
    used = [
        bool(believed(prior, [few(effects, shared, np.random.default_rng(seed))]).used)
        for seed in seeds
    ]
    assert sum(used) <= 2, np.flatnonzero(used)


@pytest.mark.parametrize("shared", ["AB", "CD", "EFG", "BDH"])
def test_a_good_table_of_few_shared_perturbations_is_used_and_they_are_named(
    fitted: Any, shared: str
) -> None:
    prior, effects = fitted
    informed = with_tables(prior, [few(effects, shared)], 0)
    assert informed.elsewhere.used
    assert error(informed, effects) < 0.5
    named = ", ".join(repr(name) for name in shared)
    with pytest.warns(UserWarning, match=rf"tried on {len(shared)} pertur.*\({named}\)"):
        warn_of_tables(informed.elsewhere)


@pytest.mark.parametrize(("along", "square"), [(3.0, 2.0), (0.1, 0.01), (-4.0, 3.0), (90.0, 9.0)])
def test_evidence_is_the_integral_over_amplitudes(along: float, square: float) -> None:
    amplitudes = np.linspace(0, MOST_AMPLITUDE, 100_001)
    likelihood = np.exp(amplitudes * along - 0.5 * amplitudes**2 * square)
    mean = float(np.trapezoid(likelihood, amplitudes)) / MOST_AMPLITUDE
    assert _Fit(along, square).evidence == pytest.approx(np.log(mean), abs=1e-6)
