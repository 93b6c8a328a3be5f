"""How much of the network is used: what cross-validated trials say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from celldit.calibration.stacking import (
    WEIGHTS,
    Trial,
    TrialError,
    best_gain,
    compare,
    stack,
    stack_courses,
)
from celldit.conditions.extrapolation import Extrapolation
from celldit.flow.anchored import FlowCondition


class Constant(torch.nn.Module):
    """A flow that moves every cell by the same step, and towards the mean of all."""

    def __init__(self, step: float, pull: float = 0.0) -> None:
        super().__init__()
        self.step, self.pull = torch.nn.Parameter(torch.tensor(step)), pull

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: FlowCondition) -> torch.Tensor:
        return self.step - self.pull * (x - x.mean(0))


def trial(
    shift: float, kind: Extrapolation = Extrapolation.CONTEXT, n: int = 300, seed: int = 0
) -> Trial:
    """Cells that should move by `shift` in each of six directions."""
    draw = torch.Generator().manual_seed(seed)
    start, truth = (torch.randn(m, 2, 3, generator=draw) for m in (160, n))
    start = start - start.mean(0)
    truth = truth - truth.mean(0) + shift
    zeros, flags = torch.zeros_like(start), torch.zeros(160, dtype=torch.bool)
    told = FlowCondition(zeros, zeros, zeros[:, 0, 0], flags, flags)
    return Trial(kind, start, told, truth, torch.ones(2))


@pytest.mark.parametrize(
    ("step", "weight"), [(1.0, 1.0), (2.0, 0.5), (4.0, 0.25), (-1.0, 0.0), (0.0, 0.0)]
)
def test_the_best_share_is_found(step: float, weight: float) -> None:
    verdict = stack(compare(Constant(step), [trial(1.0)]))
    assert verdict.weight[Extrapolation.CONTEXT] == pytest.approx(weight, abs=0.06)


def test_a_network_that_only_disturbs_is_left_out() -> None:
    verdict = stack(compare(Constant(0.3), [trial(0.0)]))
    assert verdict.weight == {Extrapolation.CONTEXT: 0.0}
    assert verdict.in_full[Extrapolation.CONTEXT] > 1


def test_trials_that_disagree_share_the_weight() -> None:
    """Conditions that the network helps beside one that it harms get less than they want."""
    helped, harmed = [trial(1.0, seed=i) for i in range(6)], trial(0.0, seed=9)
    flow = Constant(1.0)
    (alone,) = stack(compare(flow, helped)).weight.values()
    (both,) = stack(compare(flow, [*helped, harmed])).weight.values()
    assert alone > 0.95
    assert both < 0.5 * alone


def test_a_gain_within_its_error_is_not_believed() -> None:
    """One trial in two is a little better, one a little worse: luck, whichever wins."""
    kind = Extrapolation.COMBINATION

    def error(slope: float) -> TrialError:
        errors = 1 + slope * WEIGHTS
        return TrialError(kind, errors, errors, (1.0, 1.0))

    rng = np.random.default_rng(0)
    lucky = stack([error(s) for s in (-0.03 + rng.normal(0, 0.25, 12))])
    sure = stack([error(s) for s in (-0.30 + rng.normal(0, 0.05, 12))])
    assert lucky.weight[kind] < 0.2
    assert sure.weight[kind] > 0.95


def test_weak_tokens_do_not_veto() -> None:
    """At unit scale noise in the second token hides what the first gains; in its own size not."""
    made = trial(0.0)
    truth = made.truth_MKD.clone()
    truth[:, 0] += 1.5

    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(3.0))

        def forward(self, x: torch.Tensor, t: torch.Tensor, condition: FlowCondition):
            step = torch.zeros_like(x)
            step[:, 0] = 1.5
            step[:, 1] = self.scale
            return step

    made = replace(made, truth_MKD=truth)
    own_size = replace(made, unit_K=torch.tensor([10.0, 0.1]))
    (at_unit,) = stack(compare(Noisy(), [made])).weight.values()
    (at_own,) = stack(compare(Noisy(), [own_size])).weight.values()
    assert at_unit < 0.5 < at_own


def test_of_seen_conditions_only_which_cells_move_counts() -> None:
    """The mean is right in both; the kinds differ in whether that is enough."""
    made = trial(0.0, Extrapolation.SEEN)
    wide = replace(made, truth_MKD=3 * made.truth_MKD)
    (weight,) = stack(compare(Constant(0.0, pull=-1.1), [wide])).weight.values()
    assert weight > 0.5


def half_known(size: float) -> Trial:
    """The start has half of the effect."""
    made = trial(size)
    told = replace(made.condition, effect_BKD=torch.full_like(made.start_NKD, size / 2))
    return replace(made, start_NKD=made.start_NKD + size / 2, condition=told)


def test_a_large_effect_counts_no_more_than_a_small_one() -> None:
    ((small,), (large,)) = (compare(Constant(s / 4), [half_known(s)]) for s in (4.0, 40.0))
    relative = [e.square_W / e.sizes[0] for e in (small, large)]
    np.testing.assert_allclose(*relative, rtol=0.01)
    assert relative[0][0] == pytest.approx(0.25, rel=0.01)
    assert 0.5 < small.energy_W[0] / small.sizes[1] / (large.energy_W[0] / large.sizes[1]) < 2


def test_a_condition_without_effect_counts_little() -> None:
    """Else the least motion of one null condition, over nothing, would outweigh all others."""
    helped, null = [trial(1.0, seed=i) for i in range(6)], trial(0.0, seed=9)
    errors = compare(Constant(0.5), [*helped, null])
    (weight,) = stack(errors).weight.values()
    assert weight > 0.3
    # Counted like the others, by its own size, it would forbid the network.
    own = errors[-1].square_W[-1] / errors[-1].sizes[0]
    assert own > 3 * errors[0].square_W[0] / errors[0].sizes[0]


def test_compare_leaves_the_mode_alone() -> None:
    flow = Constant(0.0).train()
    compare(flow, [trial(1.0)])
    assert flow.training


def best_in_full(value: float, kind: Extrapolation = Extrapolation.CONTEXT) -> TrialError:
    """Errors of which only the last, where the network is used in full, differs."""
    errors = np.array([1.0] * (len(WEIGHTS) - 1) + [value])
    return TrialError(kind, errors, errors, (1.0, 1.0))


def test_runs_are_pooled_by_epoch() -> None:
    courses = [[[best_in_full(v)] for v in values] for values in ([0.5, 0.9, 0.2], [0.7, 0.3])]
    verdicts = stack_courses(courses)
    assert [v.in_full[Extrapolation.CONTEXT] for v in verdicts] == pytest.approx([0.6, 0.6])
    weights = [v.weight[Extrapolation.CONTEXT] for v in verdicts]
    # Two trials that agree are believed, two that differ threefold are not.
    assert weights[0] > 0.5 > weights[1]
    assert stack_courses([]) == []


def test_each_kind_has_a_weight_of_its_own() -> None:
    verdict = stack([best_in_full(3.0), best_in_full(0.5, Extrapolation.SEEN)])
    assert verdict.weight[Extrapolation.SEEN] == pytest.approx(1.0, abs=0.01)
    assert verdict.weight[Extrapolation.CONTEXT] == 0.0


def test_errors_survive_a_checkpoint() -> None:
    (made,) = compare(Constant(0.5), [trial(1.0)])
    again = TrialError.from_dict(made.to_dict())
    assert again.kind is made.kind
    np.testing.assert_array_equal(again.square_W, made.square_W)
    np.testing.assert_array_equal(again.energy_W, made.energy_W)
    assert again.sizes == made.sizes


def test_what_was_not_tried_gets_no_weight() -> None:
    from celldit.training.fit import complete_weight

    verdict = stack([best_in_full(0.3, Extrapolation.SEEN)] * 3)
    weight = complete_weight(verdict, {})
    assert weight[Extrapolation.SEEN] > 0.9
    # At other times it is that of what was seen.
    in_time = {Extrapolation.SEEN, Extrapolation.BETWEEN, Extrapolation.BEYOND}
    assert {weight[kind] for kind in Extrapolation if kind not in in_time} == {0.0}


def test_the_best_gain_is_that_of_the_best_kind() -> None:
    errors = [best_in_full(0.9), best_in_full(1.5), best_in_full(0.7, Extrapolation.SEEN)]
    assert best_gain(errors) == pytest.approx(0.3)
    assert best_gain(errors[1:2]) == 0  # at weight 0
    assert best_gain([]) == 0
    verdict = stack(errors)
    unused = verdict.without_network()
    assert any(verdict.weight.values())
    assert unused.weight == dict.fromkeys(verdict.weight, 0.0)
    assert unused.in_full == verdict.in_full
