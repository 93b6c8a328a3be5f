"""Pairs for the flow: ends are cells of the condition, starts are its own controls, moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.effects.fit_prior import fit_prior
from celldit.training import TrainingConfig
from celldit.training.flow_data import FlowBatches, FlowTables, make_tables

CONDITIONS = tuple(
    Condition(parts, None, where) for where in "xy" for parts in [(), ("A",), ("B",), ("A", "B")]
)
N = 30
UNIT = torch.tensor([2.0, 0.5])


def number_of(z: torch.Tensor) -> np.ndarray:
    """The first latent dimension is the number of the cell, so that cells can be recognised."""
    return z[:, 0, 0].round().long().numpy()


@pytest.fixture(scope="module")
def setting() -> tuple[torch.Tensor, ConditionTable, Population]:
    rng = np.random.default_rng(0)
    table = ConditionTable(CONDITIONS, rng.permutation(np.repeat(np.arange(8), N)))
    z = rng.normal(size=(8 * N, 6)) + np.arange(8)[table.index, None]
    z[:, 0] = np.arange(8 * N)
    population = Population.fit(z, table, fit_prior(z, table))
    return torch.from_numpy(z.astype(np.float32)).view(-1, 2, 3), table, population


def tables_of(setting: tuple, rows: np.ndarray | None = None) -> FlowTables:
    z, table, population = setting
    return make_tables(z, np.arange(len(z)) if rows is None else rows, table, population, UNIT)


def batches(tables: FlowTables, seed: int = 0, at_noise: bool = False, **config: object) -> list:
    settings = {"flow_batch": 40, "flow_steps_per_epoch": 5, **config}
    return list(FlowBatches(tables, TrainingConfig(**settings), seed, at_noise=at_noise))


@pytest.mark.parametrize("at_noise", [False, True])
def test_shapes(setting: tuple, at_noise: bool) -> None:
    drawn = batches(tables_of(setting), at_noise=at_noise)
    assert len(drawn) == 5
    for batch in drawn:
        assert batch.x0_BKD.shape == batch.x1_BKD.shape == (40, 2, 3)
        assert batch.x0_BKD.dtype == batch.x1_BKD.dtype == torch.float32
        assert batch.condition.effect_BKD.shape == batch.condition.position_BKD.shape == (40, 2, 3)
        assert batch.condition.sd_B.shape == (40,)
        assert bool((batch.condition.from_noise_B == at_noise).all())
        assert not batch.condition.withheld_B.any()
        assert all(torch.isfinite(t).all() for t in (batch.x0_BKD, batch.x1_BKD))


def test_starts_are_controls_of_the_same_context(setting: tuple) -> None:
    _, table, _ = setting
    for batch in batches(tables_of(setting)):
        start = number_of(batch.x0_BKD - batch.condition.effect_BKD)
        for a, b in zip(start, number_of(batch.x1_BKD), strict=True):
            one, other = (table.conditions[table.index[i]] for i in (a, b))
            assert one.is_control
            assert not other.is_control
            assert one.context == other.context
        assert (batch.condition.position_BKD == 0).all()


def test_pairs_are_those_of_optimal_transport_within_a_condition(setting: tuple) -> None:
    """In the latent's own size no other pairing of the same cells is shorter."""
    from scipy.optimize import linear_sum_assignment

    _, table, _ = setting
    sizes = []
    for batch in batches(tables_of(setting), flow_group=20, cross_fit=0.3):
        ends = table.index[number_of(batch.x1_BKD)]
        for condition in np.unique(ends):
            rows = np.flatnonzero(ends == condition)
            sizes.append(len(rows))
            start, end = (
                (x[rows] * UNIT[:, None]).flatten(1) for x in (batch.x0_BKD, batch.x1_BKD)
            )
            cost = torch.cdist(start.double(), end.double()).square().numpy()
            best = cost[linear_sum_assignment(cost)].sum()
            assert np.trace(cost) == pytest.approx(best)
            # One estimate for all that are paired with each other.
            assert len(batch.condition.effect_BKD[rows].unique(dim=0)) == 1
    assert set(sizes) <= {20, 40}  # two groups, or both of one condition


def test_groups_fill_a_batch(setting: tuple) -> None:
    _, table, _ = setting
    for group, most in ((1, 6), (13, 3), (40, 1), (500, 1)):
        for batch in batches(tables_of(setting), flow_group=group):
            assert len(batch.x0_BKD) == 40
            assert 1 <= len(set(table.index[number_of(batch.x1_BKD)])) <= most


@pytest.mark.parametrize("cross_fit", [0.0, 1.0])
def test_effects_are_those_of_the_end_point(setting: tuple, cross_fit: float) -> None:
    _, table, population = setting
    own = population.estimate(table.conditions).effect
    left_out = population.prior.leave_one_out().mean.astype(np.float32)
    crossed = dict(zip(population.prior.conditions, left_out, strict=True))
    for batch in batches(tables_of(setting), cross_fit=cross_fit):
        for i, cell in enumerate(number_of(batch.x1_BKD)):
            row = table.index[cell]
            expected = crossed[table.conditions[row]] if cross_fit else own[row]
            np.testing.assert_allclose(batch.condition.effect_BKD[i].flatten(), expected, rtol=1e-5)


def test_noise_lies_about_the_position(setting: tuple) -> None:
    _, table, population = setting
    position = population.estimate(table.conditions).position
    residuals = []
    for batch in batches(tables_of(setting), at_noise=True, cross_fit=0.0, flow_batch=400):
        rows = table.index[number_of(batch.x1_BKD)]
        told = batch.condition.position_BKD.flatten(1).numpy()
        np.testing.assert_allclose(told, position[rows], rtol=1e-5)
        residuals.append(batch.x0_BKD.flatten(1).numpy() - told)
        assert {table.conditions[i].is_control for i in rows} == {True, False}
    residual = np.concatenate(residuals)
    expected = np.mean(
        [population.factor((w, None)) @ population.factor((w, None)).T for w in "xy"], axis=0
    )
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(residual.mean(0) / scale, 0, atol=0.1)
    np.testing.assert_allclose(residual.std(0) / scale, 1, atol=0.1)


def test_only_the_given_rows_are_drawn(setting: tuple) -> None:
    _, table, _ = setting
    is_control = np.array([c.is_control for c in table.conditions])[table.index]
    rows = np.flatnonzero(is_control | (np.arange(len(table.index)) % 3 == 0))
    drawn = batches(tables_of(setting, rows), at_noise=True, flow_batch=200)
    ends = np.concatenate([number_of(b.x1_BKD) for b in drawn])
    assert set(ends) <= set(rows)
    assert len(set(ends)) > 0.8 * len(rows)


def test_small_conditions_are_not_drowned(setting: tuple) -> None:
    z, table, population = setting
    is_control = np.array([c.is_control for c in table.conditions])[table.index]
    small = table.conditions.index(Condition(("A",), None, "x"))
    keep = is_control | (table.index != small)
    keep[table.cells_of(small)[:3]] = True
    tables = make_tables(z, np.flatnonzero(keep), table, population, UNIT)
    drawn = batches(tables, flow_batch=600, flow_group=1)
    ends = table.index[np.concatenate([number_of(b.x1_BKD) for b in drawn])]
    share = np.mean(ends == small)
    expected = np.sqrt(3) / (np.sqrt(3) + 5 * np.sqrt(N))
    assert share == pytest.approx(expected, rel=0.25)
    assert share > 1.5 * 3 / (3 + 5 * N)


def test_conditions_are_withheld_for_guidance(setting: tuple) -> None:
    drawn = batches(tables_of(setting), drop_condition=0.5, flow_batch=400)
    share = torch.cat([b.condition.withheld_B for b in drawn]).float().mean()
    assert 0.4 < float(share) < 0.6


def test_the_same_seed_gives_the_same_pairs(setting: tuple) -> None:
    tables = tables_of(setting)
    one, two, other = (batches(tables, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one.x0_BKD, two.x0_BKD)
    assert torch.equal(one.x1_BKD, two.x1_BKD)
    assert not torch.equal(one.x1_BKD, other.x1_BKD)
    stream = FlowBatches(tables, TrainingConfig(flow_batch=8, flow_steps_per_epoch=1), 1)
    assert not torch.equal(next(iter(stream)).x1_BKD, next(iter(stream)).x1_BKD)


def test_pairs_start_where_effects_are_measured_from() -> None:
    """Controls at 0 and 20 hours, cells of X at 24: both must count from the same controls."""
    conditions = (
        Condition((), None, "a", 0.0),
        Condition((), None, "a", 20.0),
        Condition(("X",), None, "a", 24.0),
    )
    table = ConditionTable(conditions, np.repeat([0, 1, 2], 50))
    z = np.random.default_rng(0).normal(size=(150, 2)) + np.repeat([0.0, 10.0, 12.0], 50)[:, None]
    population = Population.fit(z, table, fit_prior(z, table))
    z_NKD = torch.from_numpy(z.astype(np.float32)).view(-1, 1, 2)
    tables = make_tables(z_NKD, np.arange(150), table, population, torch.ones(1))
    (batch, *_) = batches(tables, flow_batch=200, cross_fit=0.0)
    start = (batch.x0_BKD - batch.condition.effect_BKD).mean(0).flatten().numpy()
    np.testing.assert_allclose(start, population.references["a", 24.0], atol=0.3)
    assert start.mean() > 9


@pytest.fixture(scope="module")
def in_states(setting: tuple) -> tuple[FlowTables, FlowTables, States, np.ndarray]:
    """Pairs of a third of the cells by condition, and by state: two in one context, three in y."""
    z, table, _ = setting
    rng = np.random.default_rng(1)
    states = States(
        (*[("x", None)] * 2, *[("y", None)] * 3),
        rng.normal(size=(5, 6)),
        np.tril(rng.normal(size=(5, 6, 6))) + 3 * np.eye(6),
        np.ones(5),
        {},
    )
    of_y = np.array([c.context == "y" for c in table.conditions])[table.index]
    state_N = np.where(of_y, 2 + rng.integers(0, 3, len(z)), rng.integers(0, 2, len(z)))
    rows = np.sort(rng.permutation(len(z))[: len(z) // 3])
    tables = tables_of(setting, rows)
    return tables, tables.by_state(table, states, state_N), states, state_N


def test_each_condition_and_state_has_its_cells(setting: tuple, in_states: tuple) -> None:
    _, table, _ = setting
    tables, by_state, _, state_N = in_states
    found: dict[tuple[int, int], list[int]] = {}
    for row, (first, size) in enumerate(zip(by_state.first, by_state.size, strict=True)):
        cells = by_state.order[first : first + size]
        (pair,) = {(table.index[i], state_N[i]) for i in cells}
        assert pair not in found
        assert by_state.factor_row[row] == pair[1]
        found[pair] = sorted(cells.tolist())
    wanted: dict[tuple[int, int], list[int]] = {}
    for i in sorted(tables.order):
        wanted.setdefault((table.index[i], state_N[i]), []).append(i)
    assert found == wanted
    # States of a condition share its weight by their cells.
    of_row = table.index[by_state.order[by_state.first]]
    for condition in range(len(table)):
        own = of_row == condition
        share = by_state.size[own] / tables.size[condition]
        expected = share * np.sqrt(tables.size[condition])
        np.testing.assert_allclose(by_state.weight_C[own], expected)


@pytest.mark.parametrize("crossed", [False, True])
def test_each_condition_and_state_has_its_estimate(
    setting: tuple, in_states: tuple, crossed: bool
) -> None:
    _, table, _ = setting
    tables, by_state, states, state_N = in_states
    row_R = np.arange(len(by_state.size))
    first = by_state.order[by_state.first]
    condition_R, state_R = table.index[first], state_N[first]
    cross = np.full(len(row_R), crossed)
    usual = tables.conditioning(cross, condition_R, ~cross, from_noise=True)
    found = by_state.conditioning(cross, row_R, ~cross, from_noise=True)
    assert torch.equal(found.effect_BKD, usual.effect_BKD)
    assert torch.equal(found.sd_B, usual.sd_B)
    conditions = [table.conditions[c] for c in condition_R]
    means_RF = usual.position_BKD.flatten(1).numpy()
    expected = states.positions(conditions, means_RF, row_R, state_R)
    np.testing.assert_allclose(found.position_BKD.flatten(1), expected, rtol=1e-5, atol=1e-5)


def test_noise_scatters_as_the_cells_of_the_state(setting: tuple, in_states: tuple) -> None:
    _, by_state, states, state_N = in_states
    drawn = batches(by_state, at_noise=True, flow_batch=2_000)
    away_NF = torch.cat([b.x0_BKD - b.condition.position_BKD for b in drawn]).flatten(1).numpy()
    state = state_N[np.concatenate([number_of(b.x1_BKD) for b in drawn])]
    for s in range(len(states)):
        noise_NF = np.linalg.solve(states.factors_SFF[s], away_NF[state == s].T).T
        np.testing.assert_allclose(np.cov(noise_NF.T), np.eye(6), atol=0.2)
