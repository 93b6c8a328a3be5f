"""States of cells: found where they are, none where none are, composition apart from shift."""

from __future__ import annotations

import numpy as np
import pytest

from celldit.conditions import ConditionTable
from celldit.conditions.condition import Condition
from celldit.conditions.population import Population
from celldit.conditions.states import FEWEST_CELLS, States
from celldit.effects.fit_prior import fit_prior

CONTROL, A = Condition(context="d"), Condition(("A",), context="d")
AWAY_F = np.array([6.0, -4.0, 0.0, 0.0])
SHIFT_F = np.array([0.0, 0.0, 1.5, 0.0])


def made(
    shares: dict[Condition, float], n_cells: int = 400, away_F: np.ndarray = AWAY_F, seed: int = 0
) -> tuple[np.ndarray, ConditionTable, np.ndarray]:
    """Cells of which a share in each condition is in a second state, and which those are."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(len(shares)), n_cells)
    second = rng.random(len(index)) < np.array(list(shares.values()))[index]
    z = rng.normal(size=(len(index), 4)) * [1.0, 0.5, 0.7, 0.3]
    z += second[:, None] * away_F
    z += np.array([[0.0] if c.is_control else [1.0] for c in shares])[index] * SHIFT_F
    return z, ConditionTable(tuple(shares), index), second


def fitted(z: np.ndarray, table: ConditionTable) -> tuple[States, Population]:
    prior = fit_prior(z, table, features=None, seed=0)
    population = Population.fit(z, table, prior)
    return States.fit(z, table, population, 0), population


def test_one_gaussian_is_one_state() -> None:
    z, table, _ = made({CONTROL: 0.0, A: 0.0})
    states, population = fitted(z, table)
    assert len(states) == 1
    assert states.shares == {}
    np.testing.assert_array_equal(states.factors_SFF[0], population.factor(("d", None)))


def test_states_that_no_label_tells_are_found() -> None:
    z, table, second = made({CONTROL: 0.3, A: 0.3})
    states, population = fitted(z, table)
    assert len(states) == 2
    found = states.assign(z, table, population, 0)
    agree = (found == found[second][0])[second].mean(), (found == found[~second][0])[~second].mean()
    assert min(agree) > 0.99
    assert np.array_equal(found, states.assign(z, table, population, 0))


def test_composition_is_told_from_shift() -> None:
    # A moves cells along the third dimension, and puts more of them into the second state.
    z, table, _ = made({CONTROL: 0.2, A: 0.7})
    states, _ = fitted(z, table)
    which = int(np.argmax(states.offsets_SF[:, 0]))
    shares = {c: states.options(c)[1][which] for c in (CONTROL, A)}
    assert shares[CONTROL] == pytest.approx(0.2, abs=0.06)
    assert shares[A] == pytest.approx(0.7, abs=0.06)
    means = np.stack([z[table.index == i].mean(0) for i in (0, 1)])
    places = means - np.stack([states.centre(c) for c in (CONTROL, A)])
    np.testing.assert_allclose(places[1] - places[0], SHIFT_F, atol=0.25)
    moved = states.offsets_SF[which] - states.offsets_SF[1 - which]
    np.testing.assert_allclose(moved, AWAY_F, atol=0.25)


def test_the_mean_of_a_condition_is_kept() -> None:
    z, table, _ = made({CONTROL: 0.2, A: 0.7})
    states, _ = fitted(z, table)
    mean_QF = np.arange(8.0).reshape(2, 4)
    for q, condition in enumerate((CONTROL, A)):
        rows, share = states.options(condition)
        positions = states.positions((CONTROL, A), mean_QF, np.full(len(rows), q), rows)
        np.testing.assert_allclose(share @ positions, mean_QF[q], atol=1e-12)


def test_an_unseen_condition_has_the_usual_composition_and_a_new_context_all_states() -> None:
    z, table, _ = made({CONTROL: 0.2, A: 0.2})
    states, _ = fitted(z, table)
    rows, share = states.options(Condition(("B",), context="d"))
    np.testing.assert_allclose(share, states.cells_S / states.cells_S.sum())
    elsewhere, also = states.options(Condition(("A",), context="other"))
    assert np.array_equal(rows, elsewhere)
    np.testing.assert_allclose(share, also)


def test_controls_of_data_with_doses_have_their_own_composition() -> None:
    high = Condition(("A",), (1.0,), "d")
    z, table, _ = made({Condition((), (), "d"): 0.2, high: 0.9})
    states, _ = fitted(z, table)
    _, share = states.options(high.control())
    second = states.offsets_SF[:, 0] > 0
    assert share[second].sum() == pytest.approx(0.2, abs=0.05)


def two_contexts(shares: tuple[float, float]) -> tuple[np.ndarray, ConditionTable]:
    """120 cells in each of two contexts far apart, in states of 24 dimensions."""
    rng = np.random.default_rng(0)
    second = np.concatenate([rng.random(120) < share for share in shares])
    z = rng.normal(size=(240, 24)) * rng.uniform(0.3, 1.0, 24)
    z[:, :2] += second[:, None] * AWAY_F[:2]
    z[120:] += 20.0
    return z, ConditionTable((CONTROL, Condition(context="e")), np.repeat([0, 1], 120))


def test_alike_contexts_share_their_states_not_their_places_and_compositions() -> None:
    z, table = two_contexts((0.3, 0.6))
    states, population = fitted(z, table)
    assert states.strata == (("d", None),) * 2 + (("e", None),) * 2
    assert np.array_equal(states.offsets_SF[:2], states.offsets_SF[2:])
    assert np.array_equal(states.factors_SFF[:2], states.factors_SFF[2:])
    which = int(np.argmax(states.offsets_SF[:2, 0]))
    shares = [states.options(c)[1][which] for c in table.conditions]
    assert shares == pytest.approx([0.3, 0.6], abs=0.12)
    unseen = states.options(Condition(("A",), context="e"))[1][which]
    assert unseen == pytest.approx(0.6, abs=0.15)
    found = states.assign(z, table, population, 0)
    assert (found[:120] < 2).all()
    assert (found[120:] >= 2).all()


def test_contexts_whose_states_differ_keep_their_own() -> None:
    z, table = two_contexts((0.3, 0.3))
    rng = np.random.default_rng(3)
    z[120:] = rng.normal(size=(120, 24)) * rng.uniform(0.1, 3.0, 24)
    states, _ = fitted(z, table)
    (context, _), *_ = states.strata
    own = np.array([place == context for place, _ in states.strata])
    assert own.sum() == 2
    # The scatter of the one is nowhere in the other.
    assert all(abs(f - states.factors_SFF[own]).max() > 0.5 for f in states.factors_SFF[~own])


def test_of_very_many_contexts_all_cells_are_not_looked_at_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z, table = two_contexts((0.3, 0.6))
    monkeypatch.setattr("celldit.conditions.states.MOST_OF_ALL", 2 * FEWEST_CELLS - 1)
    monkeypatch.setattr("celldit.conditions.states.shared_mixture", pytest.fail)
    states, _ = fitted(z, table)
    assert {place for place, _ in states.strata} == {"d", "e"}


def test_contexts_of_few_cells_share_nothing() -> None:
    z, table = two_contexts((0.3, 0.3))
    some = np.r_[:20, 120:140]
    states, _ = fitted(z[some], ConditionTable(table.conditions, table.index[some]))
    assert len(states) == 2


def test_few_cells_are_one_state() -> None:
    z, table, _ = made({CONTROL: 0.5}, n_cells=20)
    assert len(fitted(z, table)[0]) == 1


def test_states_survive_their_arrays() -> None:
    z, table, _ = made({CONTROL: 0.2, A: 0.7})
    states, _ = fitted(z, table)
    again = States.from_config(states.to_config(), states.arrays())
    assert again.strata == states.strata
    for condition in (CONTROL, A):
        assert np.array_equal(again.options(condition)[1], states.options(condition)[1])
    assert np.array_equal(again.factors_SFF, states.factors_SFF)


def test_contexts_that_only_an_earlier_training_saw_stay() -> None:
    z, table, _ = made({CONTROL: 0.2, A: 0.2})
    earlier, _ = fitted(z, table)
    other = ConditionTable((Condition(context="e"), Condition(("A",), context="e")), table.index)
    later, _ = fitted(z, other)
    both = later.with_earlier(earlier)
    assert len(both) == 4
    assert np.array_equal(both.options(A)[1], earlier.options(A)[1])
    assert np.array_equal(both.offsets_SF[both.options(A)[0]], earlier.offsets_SF)
    assert len(later.with_earlier(later)) == 2
