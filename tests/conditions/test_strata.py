"""Which control cells belong to a condition, and what follows from that."""

from __future__ import annotations

from time import process_time

import numpy as np
import pytest

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.strata import Origin, Strata, mean_controls
from celldit.conditions.time_scale import TimeScale
from celldit.effects.shifts import condition_means


def table_of(sizes: dict[Condition, int]) -> ConditionTable:
    return ConditionTable(tuple(sizes), np.repeat(np.arange(len(sizes)), list(sizes.values())))


def control(where: str = "", time: float | None = None) -> Condition:
    return Condition((), None, where, time)


def treated(where: str = "", time: float | None = None) -> Condition:
    return Condition(("X",), None, where, time)


def strata_and_means(
    sizes: dict[Condition, int], means: list[float]
) -> tuple[Strata, dict[tuple[str, float | None], np.ndarray]]:
    table = table_of(sizes)
    z = np.repeat(np.array(means, dtype=float), list(sizes.values()))[:, None]
    strata = Strata.of_table(table)
    return strata, strata.means(condition_means(z, table)[0])


def test_own_controls_are_the_controls() -> None:
    strata, means = strata_and_means(
        {control("A"): 50, control("B"): 40, treated("A"): 9}, [1.0, 5.0, 2.0]
    )
    assert strata[("A", None)].origin is Origin.OWN
    assert strata[("A", None)].shares == {0: 1.0}
    assert strata[("A", None)].n_cells == 50
    assert means[("A", None)] == [1.0]


def test_between_two_times_controls_are_those_on_either_side() -> None:
    sizes = {control("A", 0.0): 50, control("A", 20.0): 50, treated("A", 5.0): 30}
    strata, means = strata_and_means(sizes, [0.0, 10.0, 12.0])
    stratum = strata[("A", 5.0)]
    assert stratum.origin is Origin.TIMES
    assert stratum.shares == {0: 0.75, 1: 0.25}
    assert stratum.n_cells == pytest.approx(1 / (0.75**2 / 50 + 0.25**2 / 50))
    assert means[("A", 5.0)] == [2.5]


def test_after_the_last_time_controls_are_those_of_the_last() -> None:
    """Effects were once measured from all times together, and training pairs began at the first."""
    sizes = {control("A", 0.0): 50, control("A", 20.0): 50, treated("A", 24.0): 50}
    strata, means = strata_and_means(sizes, [0.0, 10.0, 12.0])
    assert strata[("A", 24.0)].shares == {1: 1.0}
    assert means[("A", 24.0)] == [10.0]


def test_a_context_without_controls_has_those_of_all_others() -> None:
    sizes = {control("A"): 60, control("B"): 20, treated("C"): 50}
    strata, means = strata_and_means(sizes, [0.0, 4.0, 9.0])
    stratum = strata[("C", None)]
    assert stratum.origin is Origin.CONTEXTS
    assert stratum.shares == {0: 0.75, 1: 0.25}
    assert means[("C", None)] == [1.0]


def test_the_mean_of_the_cells_is_the_mean_that_effects_are_measured_from() -> None:
    sizes = {
        control("A", 0.0): 31, control("A", 9.0): 7, treated("A", 4.0): 5, treated("A", 11.0): 5,
        control("B", 0.0): 3, treated("B", 0.0): 8, treated("C", 2.0): 4,
    }  # fmt: skip
    table = table_of(sizes)
    z = np.random.default_rng(0).normal(size=(sum(sizes.values()), 3)) + table.index[:, None]
    strata = Strata.of_table(table)
    means = strata.means(condition_means(z, table)[0])
    for key in strata.of:
        positions, weights = strata.cells(key)
        assert weights.sum() == pytest.approx(1)
        assert all(table.conditions[i].is_control for i in table.index[positions])
        np.testing.assert_allclose(weights @ z[positions], means[key], atol=1e-12)


def test_few_own_controls_share_with_others_in_proportion() -> None:
    means = []
    for n in range(8):
        sizes = {control("A"): 40, treated("B"): 20} | ({control("B"): n} if n else {})
        means.append(float(strata_and_means(sizes, [0.0, 9.0, 5.0][: len(sizes)])[1]["B", None][0]))
    np.testing.assert_allclose(means, [0, 1, 2, 3, 4, 5, 5, 5], atol=1e-12)


def test_one_context_with_few_controls_keeps_them() -> None:
    strata, means = strata_and_means({control(): 2, treated(): 20}, [3.0, 9.0])
    assert strata[("", None)].shares == {0: 1.0}
    assert strata[("", None)].n_cells == 2
    assert means[("", None)] == [3.0]


def test_without_any_control_all_cells_stand_in() -> None:
    strata, means = strata_and_means({treated("A"): 10, treated("B"): 30}, [0.0, 4.0])
    assert {s.origin for s in strata.of.values()} == {Origin.CELLS}
    assert means[("A", None)] == [3.0]


def test_controls_between_two_times_are_on_the_way() -> None:
    means = {("A", 0.0): np.zeros(2), ("A", 10.0): np.array([3.0, 0.0])}
    for time, place in ((24.0, 3.0), (5.0, 1.5), (-2.0, 0.0)):
        np.testing.assert_allclose(mean_controls(means, ("A", time)), [place, 0])
    fast = mean_controls(means, ("A", 5.0), None, TimeScale(0, 10, rate=3.0))
    np.testing.assert_allclose(fast, [3 * 0.817574, 0], rtol=1e-5)


def test_a_new_context_is_where_its_controls_at_hand_are() -> None:
    means = {("A", None): np.zeros(2), ("B", None): np.full(2, 4.0)}
    np.testing.assert_allclose(mean_controls(means, ("C", None)), [2, 2])
    at_hand = {("C", None): np.ones(2), ("A", None): np.ones(2)}
    np.testing.assert_allclose(mean_controls(means, ("C", None), at_hand), [1, 1])
    np.testing.assert_allclose(mean_controls(means, ("A", None), at_hand), [0, 0])


def test_hundreds_of_contexts_of_few_controls_take_no_time() -> None:
    sizes = {c: 2 for i in range(600) for c in (control(f"b{i}"), treated(f"b{i}"))}
    start = process_time()
    strata = Strata.of_table(table_of(sizes))
    assert process_time() - start < 3
    assert len(strata.of) == 600
    assert len(strata["b0", None].shares) == 600
