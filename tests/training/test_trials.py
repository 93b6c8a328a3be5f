"""What is held out for the trials."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.extrapolation import Extrapolation, Known
from celldit.conditions.population import Population
from celldit.effects.fit_prior import fit_prior
from celldit.training.trials import MAX_CONDITIONS, hold_out, make_trials

condition = st.builds(
    Condition,
    st.sets(st.sampled_from("ABCDE"), min_size=1, max_size=2).map(lambda s: tuple(sorted(s))),
    st.none(),
    st.sampled_from("xyz"),
)


@given(st.lists(condition, unique=True, max_size=25), st.floats(0, 1), st.integers(0, 100))
def test_what_is_held_out_can_still_be_predicted(
    conditions: list[Condition], share: float, seed: int
) -> None:
    held_out = hold_out(conditions, share, np.random.default_rng(seed))
    assert (
        len(set(held_out)) == len(held_out) <= min(MAX_CONDITIONS, np.ceil(share * len(conditions)))
    )
    assert set(held_out) <= set(conditions)
    rest = [c for c in conditions if c not in held_out]
    for c in held_out:
        assert Known(rest).classify(c) in (Extrapolation.CONTEXT, Extrapolation.COMBINATION)


def test_what_has_no_relative_stays() -> None:
    alone = [Condition((name,), None, "x") for name in "ABCD"]
    assert hold_out(alone, 1.0, np.random.default_rng(0)) == []
    assert hold_out([], 1.0, np.random.default_rng(0)) == []


def test_later_trials_hold_out_other_conditions() -> None:
    conditions = [Condition(("A",), None, where) for where in "abcdefghij"]
    tried: list[Condition] = []
    for trial in range(5):
        held_out = hold_out(conditions, 0.2, np.random.default_rng(trial), (), tried)
        assert len(held_out) == 2
        tried += held_out
    assert set(tried) == set(conditions)
    # When all have been, they come again.
    assert len(hold_out(conditions, 0.2, np.random.default_rng(9), (), tried)) == 2


def test_trials_hold_no_training_rows() -> None:
    rng = np.random.default_rng(0)
    conditions = tuple(
        Condition(p, None, w) for w in "xy" for p in [(), ("A",), ("B",), ("A", "B")]
    )
    table = ConditionTable(conditions, np.repeat(np.arange(8), 60))
    z = rng.normal(size=(480, 6)) + np.arange(8)[table.index, None]
    z[:, 0] = np.arange(480)
    population = Population.fit(z, table, fit_prior(z, table))
    z_NKD = torch.from_numpy(z.astype(np.float32)).view(-1, 2, 3)
    held_out = [Condition(("A", "B"), None, "x")]
    is_control = np.array([c.is_control for c in conditions])[table.index]
    apart = (rng.random(480) < 0.3) & ~is_control
    apart |= table.index == conditions.index(held_out[0])
    trials = make_trials(
        z_NKD, table, population, held_out, np.flatnonzero(apart), rng, torch.ones(2)
    )
    assert sum(t.kind is not Extrapolation.SEEN for t in trials) == 1
    reduced = population.without(held_out).estimate(conditions).effect
    for trial in trials:
        truth = trial.truth_MKD[:, 0, 0].round().long().numpy()
        assert apart[truth].all()
        (of,) = set(table.index[truth])
        start = (trial.start_NKD - trial.condition.effect_BKD)[:, 0, 0].round().long().numpy()
        assert {table.conditions[i] for i in table.index[start]} == {conditions[of].control()}
        told = trial.condition.effect_BKD[0].flatten()
        np.testing.assert_allclose(told, reduced[of], rtol=1e-5)
        assert (trial.kind is Extrapolation.SEEN) == (conditions[of] not in held_out)


def test_too_few_cells_for_transport_are_paired_at_random() -> None:
    from celldit.training import TrainingConfig
    from celldit.training.flow_stage import _with_enough_cells

    conditions = (Condition(), Condition(("A",)), Condition(("B",)))
    few = ConditionTable(conditions, np.repeat([0, 1, 2], [40, 3, 4]))
    with pytest.warns(UserWarning, match=r"have 3\.5 cells \(median\), too few for optimal"):
        assert _with_enough_cells(TrainingConfig(), few).coupling == "independent"
    enough = ConditionTable(conditions, np.repeat([0, 1, 2], [40, 20, 30]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _with_enough_cells(TrainingConfig(), enough).coupling == "ot"


def test_thousands_of_single_perturbations_are_told_at_once() -> None:
    conditions = [Condition((f"g{i}",)) for i in range(4_000)]
    # By looks at all others for each it takes 14 s.
    start = time.perf_counter()
    assert hold_out(conditions, 0.2, np.random.default_rng(0)) == []
    assert time.perf_counter() - start < 2
