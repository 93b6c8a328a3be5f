"""The effect prior adds up what it has seen, knows what it does not know, and is exact about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from celldit.conditions import Condition, ConditionTable
from celldit.effects import EffectPrior
from celldit.effects.features.features import read_features
from celldit.effects.fit_prior import fit_prior
from celldit.effects.storage import prior_arrays, prior_config, prior_from

Make = Callable[..., object]


@pytest.fixture(scope="module")
def fitted(world: Make, crossed: list[Condition]) -> tuple[object, EffectPrior]:
    made = world(crossed)
    return made, fit_prior(made.z, made.table)


def pair(*parts: str, where: str = "") -> Condition:
    return Condition(tuple(sorted(parts)), None, where)


def close(estimate: np.ndarray, truth: np.ndarray, share: float) -> None:
    """The squared error is at most this share of the squared effect."""
    assert np.square(estimate - truth).sum() < share * np.square(truth).sum()


def test_unseen_pairs_add_up(world: Make) -> None:
    """Where effects are additive and exactly measured, a pair never seen is the sum."""
    singles = [(name,) for name in "ABCDEFGH"]
    pairs = [("A", "B"), ("C", "D"), ("E", "F"), ("G", "H"), ("B", "C")]
    made = world([Condition(p) for p in [(), *singles, *pairs]], n_cells=400)
    prior = fit_prior(made.z, made.table)
    asked = [pair("A", "C"), pair("D", "H"), pair("F", "G"), pair("A", "D", "E")]
    for condition, mean in zip(asked, prior.estimate(asked).mean, strict=True):
        close(mean, made.truth(*condition.parts), 0.02)


def test_observed_conditions_are_recovered(fitted: tuple) -> None:
    made, prior = fitted
    estimate = prior.estimate(prior.conditions)
    for condition, mean in zip(prior.conditions, estimate.mean, strict=True):
        close(mean, made.truth(*condition.parts), 0.05)


def test_a_new_context_gets_the_pooled_effect(fitted: tuple) -> None:
    made, prior = fitted
    mean = prior.estimate([pair("A", where="new")], {("new", None): made.z.mean(0)}).mean[0]
    close(mean, made.truth("A"), 0.2)


def test_controls_have_no_effect_and_no_doubt(fitted: tuple) -> None:
    _, prior = fitted
    estimate = prior.estimate([Condition(context="x"), Condition(context="y")])
    assert (estimate.mean == 0).all()
    assert (estimate.variance == 0).all()


def test_leave_one_out_is_an_explicit_refit(fitted: tuple) -> None:
    _, prior = fitted
    shortcut = prior.leave_one_out()
    for i, condition in enumerate(prior.conditions):
        refit = prior.without([condition]).estimate([condition])
        np.testing.assert_allclose(shortcut.mean[i], refit.mean[0], atol=1e-8)
        np.testing.assert_allclose(shortcut.variance[i], refit.variance[0], atol=1e-8)


def test_without_forgets_what_was_left_out(fitted: tuple) -> None:
    _, prior = fitted
    gone = [c for c in prior.conditions if "F" in c.parts]
    reduced = prior.without(gone)
    assert set(reduced.conditions) == set(prior.conditions) - set(gone)
    other = replace(prior, shifts=prior.shifts.copy())
    for i, condition in enumerate(prior.conditions):
        if condition in gone:
            other.shifts[i] = 1e3
    np.testing.assert_array_equal(
        reduced.estimate(gone).mean, other.without(gone).estimate(gone).mean
    )
    assert (reduced.estimate(gone).variance > prior.estimate(gone).variance).all()


def test_doubt_shrinks_with_more_cells(fitted: tuple) -> None:
    _, prior = fitted
    asked = [*prior.conditions, pair("A", "F", where="x")]
    variances = [
        replace(
            prior,
            noise=prior.noise / n,
            control_noise={key: v / n for key, v in prior.control_noise.items()},
        )
        .estimate(asked)
        .variance
        for n in (1, 4, 16)
    ]
    assert (variances[0] > variances[1]).all()
    assert (variances[1] > variances[2]).all()


def test_doubt_is_larger_for_a_new_combination(fitted: tuple) -> None:
    _, prior = fitted
    seen, new = prior.estimate([pair("A", where="x"), pair("A", "F", where="x")]).sd
    assert seen < new


def test_doubt_covers_the_error(world: Make, crossed: list[Condition]) -> None:
    """Errors of leave-one-out estimates, in units of their standard deviation, are about one."""
    made = world(crossed, exact=False, seed=3)
    prior = fit_prior(made.z, made.table)
    left_out = prior.leave_one_out()
    truth = np.array([made.truth(*c.parts) for c in prior.conditions])
    errors = (left_out.mean - truth) @ prior.rotation
    assert 0.4 < np.sqrt(np.mean(errors**2 / left_out.variance)) < 2


def test_noise_alone_is_shrunk(world: Make, crossed: list[Condition]) -> None:
    """Where nothing has an effect, the estimates are smaller than what was measured."""
    made = world(crossed, size=0.0, exact=False, n_cells=20)
    prior = fit_prior(made.z, made.table)
    measured = prior.shifts @ np.linalg.inv(prior.rotation)
    estimate = prior.estimate(prior.conditions).mean
    assert np.square(estimate).sum() < 0.7 * np.square(measured).sum()


def test_units_of_the_latent_do_not_matter(world: Make, crossed: list[Condition]) -> None:
    made = world(crossed, exact=False)
    asked = [pair("A", where="x"), pair("A", "F", where="y")]
    plain, scaled = (fit_prior(u * made.z, made.table).estimate(asked) for u in (1.0, 7.0))
    np.testing.assert_allclose(scaled.mean, 7 * plain.mean, rtol=0.05, atol=0.05)
    np.testing.assert_allclose(scaled.sd, plain.sd, rtol=0.05)


def test_project_is_the_linear_map(fitted: tuple) -> None:
    _, prior = fitted
    estimate = prior.estimate(prior.conditions[:3])
    loadings = np.random.default_rng(0).normal(size=(4, 6))
    mean, sd = estimate.project(loadings)
    np.testing.assert_allclose(mean, estimate.mean @ loadings)
    for row in range(3):
        covariance = estimate.basis.T @ np.diag(estimate.variance[row]) @ estimate.basis
        np.testing.assert_allclose(sd[row] ** 2, np.diag(loadings.T @ covariance @ loadings))


@pytest.mark.parametrize(
    "conditions",
    [
        [Condition(), Condition(("A",))],
        [Condition(), Condition(("A",)), Condition(("B",)), Condition(("A", "B"))],
        [Condition(context=w) for w in "xyz"] + [Condition(("A",), None, w) for w in "xy"],
        [Condition(time=t) for t in (1.0, 2.0)] + [Condition(("A",), None, "", 1.0)],
        [Condition(("A",)), Condition(("B",))],
        [Condition(context="x"), Condition(("A",), None, "x"), Condition(("A",), None, "y")],
    ],
    ids=["one", "one context", "contexts", "times", "no controls", "a context without controls"],
)
def test_small_designs(world: Make, conditions: list[Condition]) -> None:
    made = world(conditions)
    prior = fit_prior(made.z, made.table)
    estimate = prior.estimate(conditions)
    assert np.isfinite(estimate.mean).all()
    assert np.isfinite(estimate.sd).all()
    assert np.isfinite(prior.leave_one_out().mean).all()
    assert len(prior.conditions) == sum(not c.is_control for c in conditions)


def test_one_perturbation_is_learned(world: Make) -> None:
    made = world([Condition(), Condition(("A",))], n_cells=400)
    estimate = fit_prior(made.z, made.table).estimate([pair("A")])
    close(estimate.mean[0], made.truth("A"), 0.05)


@pytest.mark.parametrize("conditions", [[Condition()], [Condition(context=w) for w in "xy"]])
def test_without_any_perturbation_nothing_happens(world: Make, conditions: list[Condition]) -> None:
    made = world(conditions)
    prior = fit_prior(made.z, made.table)
    assert prior.conditions == ()
    estimate = prior.estimate(conditions)
    assert (estimate.mean == 0).all()
    assert prior.leave_one_out().mean.shape == (0, 4)


def test_conditions_of_very_few_cells_are_not_believed(world: Make) -> None:
    made = world([Condition(), Condition(("A",)), Condition(("B",))])
    keep = np.concatenate([np.arange(120), [120, 121]])
    table = replace(made.table, index=made.table.index[keep])
    assert fit_prior(made.z[keep], table).conditions == (pair("A"),)


def test_doses_interpolate_on_the_log_scale(world: Make) -> None:
    def strength(condition: Condition, part: str) -> float:
        return float(np.log2(1 + condition.doses[0]))

    doses = (1.0, 3.0, 15.0)
    trained = [Condition(), *(Condition(("A",), (d,)) for d in doses)]
    made = world(trained, n_cells=400, strength=strength)
    prior = fit_prior(made.z, made.table)
    asked = [Condition(("A",), (d,)) for d in (0.0, 7.0)]
    mean = prior.estimate(asked).mean
    np.testing.assert_allclose(mean[0], 0, atol=1e-12)
    close(mean[1], 3 * made.truth("A"), 0.02)


def test_features_predict_what_was_never_seen(world: Make) -> None:
    rng = np.random.default_rng(0)
    names = [f"p{i:02d}" for i in range(24)]
    conditions = [Condition(), *(pair(name) for name in names)]
    made = world(conditions, n_cells=200, n_dims=6, seed=2)
    effects = np.array([made.effects[name] for name in names])
    table = pd.DataFrame(effects + rng.normal(0, 0.01, (24, 6)), index=names)
    unseen = [pair(name) for name in names[:4]]
    kept = ~np.isin(made.table.index, [conditions.index(c) for c in unseen])
    reduced = replace(made.table, index=made.table.index[kept])
    informed, blind = (
        fit_prior(made.z[kept], reduced, features=features).estimate(unseen).mean
        for features in (read_features(table), None)
    )
    truth = effects[:4]
    assert np.square(informed - truth).sum() < 0.5 * np.square(blind - truth).sum()


def test_saved_and_read_again_it_is_the_same(world: Make, crossed: list[Condition]) -> None:
    made = world(crossed)
    one, two = (
        pd.DataFrame(np.eye(6), index=list("ABCDEF")),
        pd.DataFrame({"s": [1.0, 1.0]}, ["A", "F"]),
    )
    tables = {"one.two": one, "sets": two.astype(pd.SparseDtype(float, 0.0))}
    prior = fit_prior(made.z, made.table, features=read_features(tables))
    config = json.loads(json.dumps(prior_config(prior)))
    again = prior_from(config, prior_arrays(prior))
    asked = [*prior.conditions, pair("A", "F", where="x"), Condition(context="x")]
    for one, two in ((prior, again), (prior.without(asked[:3]), again.without(asked[:3]))):
        a, b = one.estimate(asked), two.estimate(asked)
        assert np.array_equal(a.mean, b.mean)
        assert np.array_equal(a.variance, b.variance)


def test_priors_saved_before_metric_and_common_say_what_they_said(fitted: tuple) -> None:
    """Then contexts were compared in the latent as it is, and what is common was a kernel term."""
    _, prior = fitted
    old = replace(
        prior, common=0.3 * prior.signal, kernel=replace(prior.kernel, metric=None)
    )  # fmt: skip
    config, arrays = prior_config(old), prior_arrays(old)
    config["terms"]["common"] = 0.3
    del config["metric"], arrays["common"]
    asked = [pair("A", where="x"), pair("A", "F", where="y")]
    read = prior_from(config, arrays)
    assert read.kernel.metric is None
    for one, two in zip((old.estimate(asked), old.leave_one_out()),
                        (read.estimate(asked), read.leave_one_out()), strict=True):  # fmt: skip
        np.testing.assert_allclose(one.mean, two.mean)
        np.testing.assert_allclose(one.variance, two.variance)


def test_the_same_data_give_the_same_prior(fitted: tuple) -> None:
    made, prior = fitted
    again = fit_prior(made.z, made.table)
    assert np.array_equal(again.weights, prior.weights)
    assert np.array_equal(again.signal, prior.signal)


# --- contexts that training did not see ---------------------------------------------------------


def test_a_new_context_beside_them_does_not_change_known_ones(fitted: tuple) -> None:
    made, prior = fitted
    asked = [pair("A", where="x"), pair("A", "F", where="y")]
    alone = prior.estimate(asked)
    beside = prior.estimate([*asked, pair("A", where="new")], {("new", None): made.z[0] + 9})
    np.testing.assert_allclose(beside.mean[:2], alone.mean, atol=1e-10)
    np.testing.assert_allclose(beside.variance[:2], alone.variance, atol=1e-10)


def test_a_new_context_after_training_in_one(world: Make) -> None:
    made = world([Condition(p, None, "x") for p in [(), ("A",), ("B",)]])
    prior = fit_prior(made.z, made.table)
    estimate = prior.estimate([pair("A", where="new")], {("new", None): made.z[0]})
    close(estimate.mean[0], made.truth("A"), 0.2)


# --- several sources of features ----------------------------------------------------------------


def share_of_sources(prior: EffectPrior) -> dict[str, float]:
    """Share of each feature source in all weights."""
    weight = dict(zip(prior.kernel.terms, prior.weights.tolist(), strict=True))
    total = sum(weight.values())
    sources = {t: w / total for t, w in weight.items() if t.startswith("feature:")}
    return {term.removeprefix("feature:"): share for term, share in sources.items()}


@pytest.fixture(scope="module")
def informed(world: Make) -> tuple[object, dict[str, pd.DataFrame]]:
    """Forty perturbations, and two tables of features: one that tells of effects, one random."""
    rng = np.random.default_rng(0)
    names = [f"p{i:02d}" for i in range(40)]
    made = world([Condition(), *(pair(name) for name in names)], n_cells=100, n_dims=6, seed=0)
    effects = np.array([made.effects[name] for name in names])
    knowing = effects @ rng.normal(size=(6, 10)) + rng.normal(0, 0.5, (40, 10))
    tables = {"knowing": knowing, "random": rng.normal(size=(40, 12))}
    return made, {source: pd.DataFrame(x, index=names) for source, x in tables.items()}


def test_a_source_that_tells_gets_the_weight_and_noise_does_not(informed: tuple) -> None:
    made, tables = informed
    share = share_of_sources(fit_prior(made.z, made.table, features=read_features(tables)))
    assert share["knowing"] > 0.4
    assert share["random"] < 0.05


def test_units_of_a_source_do_not_matter(informed: tuple) -> None:
    made, tables = informed
    scaled = {"knowing": 1e3 * tables["knowing"] - 7, "random": tables["random"]}
    one, two = (fit_prior(made.z, made.table, features=read_features(t))
                for t in (tables, scaled))  # fmt: skip
    np.testing.assert_allclose(one.weights, two.weights, rtol=1e-6)


def test_a_perturbation_in_one_source_only(informed: tuple) -> None:
    """What one source lacks, another may know; trained ones may be in none."""
    made, tables = informed
    names = ["p00", "p01", "p02", "p03"]
    gaps = {
        "knowing": tables["knowing"].drop(index=["p05", "p06"]),
        "random": tables["random"].drop(index=[*names, "p06", "p07"]),
    }
    unseen = [pair(name) for name in names]
    rows = [i for i, c in enumerate(made.table.conditions) if c in unseen]
    kept = ~np.isin(made.table.index, rows)
    reduced = replace(made.table, index=made.table.index[kept])
    prior = fit_prior(made.z[kept], reduced, features=read_features(gaps))
    truth = np.array([made.truth(name) for name in names])
    close(prior.estimate(unseen).mean, truth, 0.5)
    trained = [pair(name) for name in ("p05", "p06", "p07")]
    for condition, mean in zip(trained, prior.estimate(trained).mean, strict=True):
        close(mean, made.truth(*condition.parts), 0.1)


def test_whole_perturbations_are_left_out_for_features(world: Make) -> None:
    """Seen in three contexts, an effect need not follow from features; left out whole, it does."""
    names = [f"p{i:02d}" for i in range(12)]
    conditions = [pair(*p, where=w) for w in "xyz" for p in [(), *((n,) for n in names)]]
    made = world(conditions, n_cells=60, seed=1)
    effects = np.array([made.effects[name] for name in names])
    features = read_features(pd.DataFrame(effects, index=names))
    prior = fit_prior(made.z, made.table, features=features)
    assert share_of_sources(prior)["features"] > 0.3


def test_what_was_seen_does_not_rest_on_the_strengths_for_what_was_not(world: Make) -> None:
    """Nor does what is left out, unless a perturbation of it was tried nowhere else."""
    asked = [pair(), pair("A"), pair("B"), pair("C"), pair("A", "B"), pair("C", "D")]
    made = world(asked, n_cells=50)
    features = read_features(pd.DataFrame(np.eye(5) + 0.3, index=list("ABCDE")))
    prior = fit_prior(made.z, made.table, features=features)
    assert prior.unseen_weights is not None
    assert prior.unseen_common is not None
    other = replace(prior, unseen_weights=3 * prior.unseen_weights)
    seen, new = [pair("A"), pair("B", "C"), pair("D")], [pair("E"), pair("A", "E")]
    np.testing.assert_array_equal(prior.estimate(seen).mean, other.estimate(seen).mean)
    assert (prior.estimate(new).mean != other.estimate(new).mean).any(axis=1).all()
    changed = (prior.leave_one_out().mean != other.leave_one_out().mean).any(axis=1)
    # D is in one condition only.
    assert {c for c, new in zip(prior.conditions, changed, strict=True) if new} == {pair("C", "D")}
    for condition, mean in zip(prior.conditions, other.leave_one_out().mean, strict=True):
        close(other.without([condition]).estimate([condition]).mean[0], mean, 1e-6)
    rows = np.arange(len(prior.conditions))
    again = other.estimate_without(prior.conditions, rows)
    np.testing.assert_allclose(again.mean, other.leave_one_out().mean, atol=1e-8)


# --- times and doses between those of training --------------------------------------------------


def test_a_time_in_between_is_in_between(world: Make) -> None:
    """An effect that grows evenly is predicted at times never seen, with more doubt."""
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    conditions = [Condition(p, None, "", t) for t in times for p in [(), ("A",), ("B",)]]
    made = world(
        conditions, n_cells=200, size=2.0, strength=lambda c, part: 0.2 + 0.2 * (c.time or 0)
    )
    prior = fit_prior(made.z, made.table).of_effects
    assert "part @ time" in prior.kernel.terms
    position = {("", t): made.z.mean(0) for t in (1.5, 9.0)}
    asked = [Condition(("A",), None, "", t) for t in (1.5, 2.0, 9.0, 4.0)]
    found = prior.estimate(asked, position)
    close(found.mean[0], 0.5 * made.truth("A"), 0.02)
    np.testing.assert_allclose(found.mean[2], found.mean[3], atol=1e-9)
    without = prior.without([Condition(("A",), None, "", 2.0)])
    close(without.estimate([asked[1]]).mean[0], 0.6 * made.truth("A"), 0.02)
    assert without.estimate([asked[1]]).sd > found.sd[1]


def saturating(condition: Condition, part: str) -> float:
    (dose,) = condition.doses or (0.0,)
    return dose / (2 + dose)


def test_the_course_over_dose_may_bend(world: Make) -> None:
    """A response that saturates is predicted at a dose in between, and goes on beyond."""
    doses = [0.5, 1.0, 2.0, 8.0, 32.0]
    conditions = [Condition(), *(Condition((p,), (d,)) for p in "ABC" for d in doses)]
    made = world(conditions, n_cells=300, size=2.0, strength=saturating)
    prior = fit_prior(made.z, made.table)
    assert "part @ dose" in prior.kernel.terms
    asked = [Condition(("A",), (d,)) for d in (4.0, 32.0, 64.0, 128.0)]
    mean = prior.estimate(asked).mean
    close(mean[0], 4 / 6 * made.truth("A"), 0.02)
    along = (mean @ made.truth("A")).tolist()
    assert along[1] < along[2] < along[3]
    again = prior_from(json.loads(json.dumps(prior_config(prior))), prior_arrays(prior))
    assert np.array_equal(again.estimate(asked).mean, mean)


def test_more_conditions_than_are_tuned_on(world: Make) -> None:
    """One decomposition serves every dimension, whatever their number."""
    rng = np.random.default_rng(0)
    names = [f"p{i:04d}" for i in range(300)]
    conditions = (Condition(), *(pair(name) for name in names))
    index = np.repeat(np.arange(301), 4)
    z = rng.normal(size=(len(index), 2)) + rng.normal(size=(301, 2))[index]
    prior = fit_prior(z, ConditionTable(conditions, index))
    left_out, asked = prior.leave_one_out(), prior.conditions[17]
    refit = prior.without([asked]).estimate([asked])
    np.testing.assert_allclose(left_out.mean[17], refit.mean[0], atol=1e-8)
    np.testing.assert_allclose(left_out.variance[17], refit.variance[0], atol=1e-8)
