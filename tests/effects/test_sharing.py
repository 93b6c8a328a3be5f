"""Blocks of conditions that share perturbations say what the whole matrix says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from celldit.conditions.condition import Condition
from celldit.effects import EffectPrior, sharing
from celldit.effects.kernel import ConditionKernel
from celldit.effects.other_outputs import OtherOutputs
from celldit.effects.sharing import SharedParts, check_size
from celldit.errors import InputError, OutOfMemoryError

CONTEXTS = ("a", "b", "c")


def conditions(doses: bool, times: bool, n: int = 9) -> tuple[Condition, ...]:
    """Single perturbations and a few pairs, most in several contexts."""
    found = []
    for i in range(n):
        parts = (f"p{i}",) if i % 4 else (f"p{i}", f"p{i + 1}")
        for j, context in enumerate(CONTEXTS):
            if (i + j) % 3:
                each = tuple(1.0 + (i + j + k) % 3 for k in range(len(parts))) if doses else None
                found.append(Condition(parts, each, context, float(j % 2) if times else None))
    return tuple(found)


def prior(seed: int, doses: bool = False, times: bool = False, n: int = 9) -> EffectPrior:
    """Some prior over them, with strengths of its own in each of three dimensions."""
    rng = np.random.default_rng(seed)
    observed = conditions(doses, times, n)
    names = tuple(sorted({part for c in observed for part in c.parts}))
    whens = (0.0, 1.0) if times else (None,)
    positions = {(context, when): rng.normal(size=3) for context in CONTEXTS for when in whens}
    tops = (3.0,) * len(names) if doses else None
    kernel = ConditionKernel(names, (1.0,) * len(names), {}, positions, top_doses=tops)
    weights = rng.gamma(1, 1, len(kernel.terms))
    return EffectPrior(
        kernel,
        observed,
        rng.normal(size=(len(observed), 3)),
        rng.gamma(2, 0.2, len(observed)),
        np.eye(3),
        weights,
        (0.5, 0.7, 0.3),
        rng.gamma(1, 1, 3),
        rng.gamma(1, 1, 3) * (rng.random(3) < 0.7),
        0.5 * weights,
        np.ones(3),
    )


def asked(doses: bool, times: bool) -> list[Condition]:
    """Observed ones, a new pair, a perturbation never seen, one part of two, and a control."""
    time = 1.0 if times else None

    def one(*parts: str, context: str = "b") -> Condition:
        return Condition(parts, (1.5,) * len(parts) if doses else None, context, time)

    new = [one("p1", "p3"), one("other"), one("p2", "unknown", context="a"), one("p4")]
    return [*conditions(doses, times)[:5], *new, Condition(context="c", time=time)]


@pytest.mark.parametrize(("doses", "times"), [(False, False), (True, False), (True, True)])
def test_blocks_and_the_whole_matrix_agree(
    doses: bool, times: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prior(0, doses, times)
    # It is decided once, when observations are first looked at.
    assert whole.observed is not whole.of_unseen.observed
    monkeypatch.setattr(sharing, "SMALL", 0)
    blocks = prior(0, doses, times)
    assert whole.sharing.is_dense
    assert not blocks.sharing.is_dense
    new = asked(doses, times)
    positions = {("d", 1.0 if times else None): np.array([0.3, -1.0, 0.2])}
    new.append(replace(new[0], context="d", time=1.0 if times else None))
    rows = np.arange(len(new)) % len(whole.conditions)
    for one, two in (
        (whole.estimate(new, positions), blocks.estimate(new, positions)),
        (whole.leave_one_out(), blocks.leave_one_out()),
        (whole.estimate_without(new[:-1], rows[:-1]), blocks.estimate_without(new[:-1], rows[:-1])),
    ):
        np.testing.assert_allclose(one.mean, two.mean, atol=1e-9)
        np.testing.assert_allclose(one.variance, two.variance, atol=1e-9)


def test_likelihoods_of_other_observations_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = (0.0, 0.3, 2.0), (0.5, 0.0, 1.5)
    found = []
    for small in (200, 0):
        monkeypatch.setattr(sharing, "SMALL", small)
        each = prior(1)
        shifts = np.random.default_rng(2).normal(size=(len(each.conditions), 5))
        signal, common = np.linspace(0, 2, 5), np.full(5, 0.2)
        other = OtherOutputs.of(each, each.conditions, each.noise, shifts, signal, common)
        told, seen = other.mean(asked(False, False)), other.observed
        found.append((seen.log_likelihoods(*pairs), told, seen.leave_one_out()[0]))
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-9)


def test_pairs_are_those_that_share_a_perturbation() -> None:
    each = prior(0)
    pairs = SharedParts.of(each.kernel, each.conditions, each.conditions)
    expected = each.kernel.design(each.conditions, each.conditions)["part"].numpy()
    found = np.zeros_like(expected)
    found[pairs.row_E, pairs.column_E] = pairs.amount_E
    np.testing.assert_array_equal(found, expected)


def test_what_ties_all_conditions_together_is_decomposed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "SMALL", 0)
    chain = tuple(Condition((f"p{i}", f"p{i + 1}"), None, "a") for i in range(8))
    assert replace(prior(0).sharing, conditions=chain).is_dense
    shared = tuple(Condition(("p0", f"p{i + 1}"), None, "a") for i in range(8))
    assert replace(prior(0).sharing, conditions=shared).is_dense
    alone = tuple(Condition((f"p{i}",), None, "a") for i in range(8))
    assert not replace(prior(0).sharing, conditions=alone).is_dense


def test_too_many_contexts_are_refused_with_their_number() -> None:
    wells = [Condition(("A",), None, f"well {i}") for i in range(1_200)]
    with pytest.raises(InputError, match=r"covariate_keys=\['well'\] make 1,200 contexts"):
        check_size(wells, ["well"], tied=False)
    check_size(wells[:900], ["well"], tied=False)


def test_what_does_not_fit_into_memory_is_refused_with_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "bound", lambda: (3e6, "the memory of this machine"))
    alone = [Condition((f"p{i}",), None, "a") for i in range(400)]
    check_size(alone, [], tied=False)
    with pytest.raises(OutOfMemoryError, match=r"400 conditions .* features tie .* is 0\.0 GB"):
        check_size(alone, [], tied=True)
    chain = [Condition((f"p{i}", f"p{i + 1}"), None, "a") for i in range(400)]
    with pytest.raises(OutOfMemoryError, match="combinations tie most of them together"):
        check_size(chain, [], tied=False)
