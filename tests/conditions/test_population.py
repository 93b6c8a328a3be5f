"""Mean, scatter and library size of a condition by simple estimates."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from celldit.conditions import Condition
from celldit.conditions.population import Population
from celldit.effects.fit_prior import fit_prior

Make = Callable[..., object]


def fit(made: object) -> Population:
    return Population.fit(made.z, made.table, fit_prior(made.z, made.table))


@pytest.fixture(scope="module")
def fitted(world: Make, crossed: list[Condition]) -> tuple[object, Population]:
    made = world(crossed, n_cells=200)
    return made, fit(made)


def test_position_is_reference_plus_effect(fitted: tuple) -> None:
    made, population = fitted
    estimate = population.estimate(made.table.conditions)
    for i, condition in enumerate(made.table.conditions):
        cells = made.z[made.table.index == i]
        np.testing.assert_allclose(estimate.position[i], cells.mean(0), atol=0.3)
        reference = population.references[condition.stratum]
        np.testing.assert_allclose(estimate.position[i], reference + estimate.effect[i], atol=1e-5)
        if condition.is_control:
            np.testing.assert_allclose(estimate.position[i], cells.mean(0), atol=1e-5)


def test_scatter_is_that_within_conditions(world: Make, crossed: list[Condition]) -> None:
    made = world(crossed, n_cells=200)
    widths = np.array([1.0, 2.0, 0.5, 1.0])
    means = np.array([made.z[made.table.index == i].mean(0) for i in range(len(made.table))])
    centre = means[made.table.index]
    made.z[:] = centre + (made.z - centre) * widths
    population = fit(made)
    for place in (("x", None), ("y", None), ("never seen", None)):
        factor = population.factor(place)
        np.testing.assert_allclose(factor @ factor.T, np.diag(widths**2), atol=0.25)
    assert np.array_equal(population.factor(("never seen", None)), population.factors[None])


def test_contexts_scatter_by_themselves(world: Make) -> None:
    made = world([Condition(context=w) for w in "xy"], n_cells=400)
    wide = made.table.index == 1
    made.z[wide] = made.z[wide].mean(0) + 3 * (made.z[wide] - made.z[wide].mean(0))
    population = fit(made)
    narrow, broad = (np.trace(np.square(population.factor((w, None)))) for w in "xy")
    assert broad > 4 * narrow


def test_without_keeps_references(fitted: tuple) -> None:
    made, population = fitted
    gone = [c for c in made.table.conditions if c.parts == ("A",)]
    reduced = population.without(gone)
    assert reduced.references is population.references
    assert not set(gone) & set(reduced.prior.conditions)


def test_saved_and_read_again_it_is_the_same(fitted: tuple) -> None:
    made, population = fitted
    config = json.loads(json.dumps(population.to_config()))
    again = Population.from_config(config, population.arrays())
    one, two = (p.estimate(made.table.conditions) for p in (population, again))
    for name in ("effect", "position", "sd"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    for place in (("x", None), ("y", None), ("new", None)):
        assert np.array_equal(population.factor(place), again.factor(place))


@pytest.mark.parametrize(
    "conditions",
    [
        [Condition()],
        [Condition(time=t) for t in (1.0, 2.0)],
        [Condition(("A",)), Condition(("B",))],
        [Condition(context="x"), Condition(("A",), None, "y")],
    ],
    ids=["controls only", "times", "no controls", "no controls in a context"],
)
def test_small_designs(world: Make, conditions: list[Condition]) -> None:
    made = world(conditions, n_cells=8)
    population = fit(made)
    estimate = population.estimate(conditions)
    assert np.isfinite(estimate.position).all()
    config = json.loads(json.dumps(population.to_config()))
    again = Population.from_config(config, population.arrays())
    assert np.array_equal(again.estimate(conditions).position, estimate.position)
