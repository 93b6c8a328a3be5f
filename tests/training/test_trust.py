"""What is held out for the trials, and how far the flow is trusted by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.extrapolation import Extrapolation, classify
from celldit.conditions.population import Population
from celldit.conditions.trust import Trust
from celldit.effects import EffectPrior
from celldit.flow.anchored import FlowCondition
from celldit.training.trials import make_trials
from celldit.training.trust import (
    MAX_CONDITIONS,
    TRUSTS,
    Comparison,
    Trial,
    average_courses,
    compare,
    hold_out,
)

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
        assert classify(c, rest) in (Extrapolation.CONTEXT, Extrapolation.COMBINATION)


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
    population = Population.fit(z, np.full(480, 1e3), table, EffectPrior.fit(z, table))
    z_NKD = torch.from_numpy(z.astype(np.float32)).view(-1, 2, 3)
    held_out = [Condition(("A", "B"), None, "x")]
    is_control = np.array([c.is_control for c in conditions])[table.index]
    apart = (rng.random(480) < 0.3) & ~is_control
    apart |= table.index == conditions.index(held_out[0])
    trials = make_trials(z_NKD, table, population, held_out, np.flatnonzero(apart), rng)
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


class Constant(torch.nn.Module):
    """A flow that moves every cell by the same step, and towards the mean of all."""

    def __init__(self, step: float, pull: float = 0.0) -> None:
        super().__init__()
        self.step, self.pull = torch.nn.Parameter(torch.tensor(step)), pull

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: FlowCondition) -> torch.Tensor:
        return self.step - self.pull * (x - x.mean(0))


def trial(shift: float, kind: Extrapolation = Extrapolation.CONTEXT) -> Trial:
    """Cells that should move by `shift` in each of six directions."""
    draw = torch.Generator().manual_seed(0)
    start, truth = (torch.randn(n, 2, 3, generator=draw) for n in (160, 300))
    start = start - start.mean(0)
    truth = truth - truth.mean(0) + shift
    zeros, flags = torch.zeros_like(start), torch.zeros(160, dtype=torch.bool)
    return Trial(kind, start, FlowCondition(zeros, zeros, zeros[:, 0, 0], flags, flags), truth)


@pytest.mark.parametrize(
    ("step", "trust"), [(1.0, 1.0), (2.0, 0.5), (4.0, 0.25), (-1.0, 0.0), (0.0, 0.0)]
)
def test_the_best_share_is_found(step: float, trust: float) -> None:
    (verdict,) = average_courses([[compare(Constant(step), [trial(1.0)])]])
    assert verdict.trust == {Extrapolation.CONTEXT: Trust(trust)}
    assert (verdict.overall < 0.5) if trust else (verdict.overall == 1)


def test_a_right_shift_is_used_without_the_wrong_shape() -> None:
    (verdict,) = average_courses([[compare(Constant(1.0, pull=1.0), [trial(1.0)])]])
    assert verdict.trust == {Extrapolation.CONTEXT: Trust(1.0, 0.0)}
    narrow = trial(1.0)
    narrow = replace(narrow, truth_MKD=1 + 0.2 * (narrow.truth_MKD - 1))
    (verdict,) = average_courses([[compare(Constant(1.0, pull=1.5), [narrow])]])
    assert verdict.trust[Extrapolation.CONTEXT].cells > 0


def test_a_flow_that_only_disturbs_is_not_trusted() -> None:
    (verdict,) = average_courses([[compare(Constant(0.3), [trial(0.0)])]])
    assert verdict.trust == {Extrapolation.CONTEXT: Trust()}
    assert verdict.overall == 1


def half_known(size: float) -> Trial:
    """The start has half of the effect."""
    made = trial(size)
    told = replace(made.condition, effect_BKD=torch.full_like(made.start_NKD, size / 2))
    return replace(made, start_NKD=made.start_NKD + size / 2, condition=told)


def test_a_large_effect_counts_no_more_than_a_small_one() -> None:
    kind = Extrapolation.CONTEXT
    small, large = (compare(Constant(s / 4), [half_known(s)]) for s in (4.0, 40.0))
    np.testing.assert_allclose(small.square[kind], large.square[kind], rtol=0.01)
    assert small.square[kind][0] == pytest.approx(0.25, rel=0.01)
    assert 0.5 < small.energy[kind][0] / large.energy[kind][0] < 1


def test_compare_leaves_the_mode_alone() -> None:
    flow = Constant(0.0).train()
    compare(flow, [trial(1.0)])
    assert flow.training


def test_runs_are_pooled_by_epoch() -> None:
    def course(values: list[float]) -> list[Comparison]:
        errors = [best_of_all(v) for v in values]
        return [Comparison({Extrapolation.CONTEXT: e}, {Extrapolation.CONTEXT: e}) for e in errors]

    verdicts = average_courses([course([0.5, 0.9, 0.2]), course([0.7, 0.3])])
    assert [v.gain[Extrapolation.CONTEXT] for v in verdicts] == pytest.approx([0.6, 0.6])
    assert [v.trust[Extrapolation.CONTEXT] for v in verdicts] == [TRUSTS[-1]] * 2
    assert average_courses([]) == []


def test_what_is_seen_does_not_decide_when_extrapolations_can() -> None:
    poor, good = best_of_all(3.0), best_of_all(0.5)
    kinds = {Extrapolation.SEEN: good, Extrapolation.CONTEXT: poor}
    (verdict,) = average_courses([[Comparison(kinds, kinds)]])
    assert verdict.overall == 1
    assert verdict.trust == {Extrapolation.SEEN: TRUSTS[-1], Extrapolation.CONTEXT: Trust()}


def best_of_all(value: float) -> np.ndarray:
    """Errors of which only the last, where the flow is trusted wholly, differs."""
    return np.array([1.0] * (len(TRUSTS) - 1) + [value])
