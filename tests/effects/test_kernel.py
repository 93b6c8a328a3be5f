"""The kernel is a covariance, and its terms say what they claim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from celldit.conditions import Condition
from celldit.effects import ConditionKernel
from celldit.effects.kernel import Lengths

POSITIONS = {("x", None): np.zeros(3), ("y", None): np.ones(3), ("z", None): 5 * np.ones(3)}
LENGTHS = Lengths(*torch.tensor([0.5, 0.5, 0.25]).double())
condition = st.builds(
    Condition,
    st.sets(st.sampled_from("ABCDQ"), max_size=3).map(lambda s: tuple(sorted(s))),
    st.none(),
    st.sampled_from("xyz"),
)


def kernel(features: bool = False, positions: dict = POSITIONS) -> ConditionKernel:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    given_features = {"f": (tuple("ABCDQ"), rows)} if features else {}
    return ConditionKernel(tuple("ABCD"), (1.0,) * 4, given_features, positions)


def covariance(k: ConditionKernel, a: list, b: list, **weights: float) -> torch.Tensor:
    chosen = torch.tensor([weights.get(term, 0.0) for term in k.terms], dtype=torch.float64)
    return k.covariance(k.design(a, b), chosen, LENGTHS)


@given(st.lists(condition, min_size=1, max_size=8), st.integers(0, 1000))
def test_symmetric_and_positive(conditions: list[Condition], seed: int) -> None:
    k = kernel(features=True)
    weights = torch.from_numpy(np.random.default_rng(seed).gamma(1, 1, len(k.terms)))
    total = k.covariance(k.design(conditions, conditions), weights, LENGTHS)
    torch.testing.assert_close(total, total.T)
    assert torch.linalg.eigvalsh(total).min() > -1e-9 * (1 + total.abs().max())


def test_part_is_shared_identity() -> None:
    a = [Condition(("A",), None, "x"), Condition(("A", "B"), None, "y"), Condition((), None, "x")]
    expected = torch.tensor([[1, 1, 0], [1, 2, 0], [0, 0, 0]], dtype=torch.float64)
    assert torch.equal(covariance(kernel(), a, a, part=1.0), expected)


def test_a_perturbation_never_seen_has_an_effect_of_its_own() -> None:
    """Otherwise its effect would seem better known than that of one which was measured."""
    unknown = [Condition(("Q",), None, "x"), Condition(("A", "Q"), None, "x")]
    expected = torch.tensor([[1, 1], [1, 2]], dtype=torch.float64)
    assert torch.equal(covariance(kernel(), unknown, unknown, part=1.0), expected)


def test_contexts() -> None:
    a = [Condition(("A",), None, where) for where in "xyz"]
    k = kernel()
    assert torch.equal(covariance(k, a, a, **{"part @ context": 1.0}), torch.eye(3).double())
    similar = covariance(k, a, a, **{"part @ similar": 1.0})
    assert similar[0, 0] == 1
    assert 1 > similar[0, 1] > similar[1, 2] > similar[0, 2] > 0


def test_distances_are_taken_where_the_metric_maps_to() -> None:
    """A direction that the metric drops tells no contexts apart."""
    plain = kernel()
    apart = {
        key: [where[0] + 9.0 * i, *where[1:]] for i, (key, where) in enumerate(POSITIONS.items())
    }
    seen = replace(kernel(positions=apart), metric=np.diag([0.0, 2.0, 2.0]))
    a = [Condition(("A",), None, where) for where in "xyz"]
    similar = {"part @ similar": 1.0}
    torch.testing.assert_close(
        covariance(seen, a, a, **similar), covariance(plain, a, a, **similar)
    )
    new = seen.with_positions({("new", None): np.ones(3)})
    b = [Condition(("A",), None, where) for where in ("y", "new")]
    assert covariance(new, b, b, **similar)[0, 1] == 1


def test_totals_count_parts_and_doses() -> None:
    assert kernel().totals([Condition(), Condition(("A",)), Condition(("A", "Q"))]).tolist() == [
        0, 1, 2,
    ]  # fmt: skip
    assert dosed().totals([Condition(("A", "B"), (3.0, 2.0))]).tolist() == [3]


def test_terms_appear_only_where_they_can_differ() -> None:
    one = kernel(positions={("x", None): np.zeros(3)})
    assert one.terms == ("part", "interaction")
    assert "feature:f" in kernel(features=True).terms


@pytest.mark.parametrize(("dose", "share"), [(0.0, 0.0), (2.0, 1.0), (6.0, 2.0), (14.0, 3.0)])
def test_dose_counts_on_the_log_scale(dose: float, share: float) -> None:
    k = ConditionKernel(("A",), (2.0,), {}, {("", None): np.zeros(2)})
    amounts = k.amounts([Condition(("A",), (dose,))], ["A"])
    assert float(amounts) == pytest.approx(share)


# --- features that not every source has ---------------------------------------------------------


def test_a_source_says_nothing_of_what_it_does_not_hold() -> None:
    """Not a row of zeros: to the source, the perturbation is like itself and like no other."""
    k = kernel(features=True)
    a = [Condition((name,), None, "x") for name in ("A", "Y", "Z")]
    found = covariance(k, a, a, **{"feature:f": 1.0})
    assert found[1:, 1:].tolist() == [[1, 0], [0, 1]]
    assert (found[0, 1:] == 0).all()


def test_sources_hold_different_perturbations() -> None:
    one, two = (("A", "B"), np.array([[1.0], [1.0]])), (("B", "C"), np.array([[1.0], [-1.0]]))
    k = ConditionKernel(
        tuple("ABC"), (1.0,) * 3, {"one": one, "two": two}, {("", None): np.ones(2)}
    )
    a = [Condition((name,)) for name in "ABC"]
    total = covariance(k, a, a, **{"feature:one": 1.0, "feature:two": 1.0})
    far = np.exp(-4.0)
    expected = torch.tensor([[2, 1, 0], [1, 2, far], [0, far, 2]], dtype=torch.float64)
    torch.testing.assert_close(total, expected)


def test_sets_have_effects_that_their_members_share() -> None:
    """The covariance is that of sums over sets: more sets, more variance; none shared, none."""
    member = sparse.csr_matrix([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    k = ConditionKernel(
        tuple("ABC"), (1.0,) * 3, {"sets": (tuple("ABC"), member)}, {("", None): np.ones(2)}
    )
    a = [Condition((name,)) for name in "ABCX"]
    found = covariance(k, a, a, **{"feature:sets": 1.0})
    expected = [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    pair = [Condition(("A", "C"))]
    assert float(covariance(k, pair, pair, **{"feature:sets": 1.0})) == pytest.approx(2 + 4)


# --- time and dose ------------------------------------------------------------------------------


def timed(n_trained: int | None = None) -> ConditionKernel:
    positions = {("", t): np.zeros(2) for t in (1.0, 2.0, 4.0)}
    return ConditionKernel(("A", "B"), (1.0, 1.0), {}, positions, n_trained)


def at(*times: float) -> list[Condition]:
    return [Condition(("A",), None, "", time) for time in times]


def test_close_times_are_alike() -> None:
    assert timed().terms == ("part", "interaction", "common @ time", "part @ time")
    a = at(1, 1.5, 2, 3, 4)
    k = covariance(timed(), a, a, **{"part @ time": 1.0})[0]
    assert k[0] == 1
    assert (k[:-1] > k[1:]).all()
    assert k[-1] > 0


def test_beyond_the_trained_times_the_nearest_counts() -> None:
    a = at(0.1, 1, 4, 99)
    k = covariance(timed(), a, a, **{"part @ time": 1.0})
    assert torch.equal(k[0], k[1])
    assert torch.equal(k[2], k[3])


def test_times_within_contexts() -> None:
    positions = {(w, t): np.full(2, float(w == "y")) for w in "xy" for t in (1.0, 2.0)}
    k = ConditionKernel(("A",), (1.0,), {}, positions)
    a = [Condition(("A",), None, where, when) for where, when in positions]
    own = covariance(k, a, a, **{"part @ context, time": 1.0})
    shared = covariance(k, a, a, **{"part @ time": 1.0})
    assert 0 < own[0, 1] < 1
    assert (own[:2, 2:] == 0).all()
    torch.testing.assert_close(shared[:2, 2:], own[:2, :2])


def dosed() -> ConditionKernel:
    return ConditionKernel(
        ("A", "B"), (1.0, 2.0), {}, {("", None): np.zeros(2)}, top_doses=(15.0, 2.0)
    )


def test_a_single_dose_has_no_course() -> None:
    one = ConditionKernel(("A",), (2.0,), {}, {("", None): np.zeros(2)}, top_doses=(2.0,))
    assert one.terms == ("part", "interaction")


def test_close_doses_of_one_perturbation_are_alike() -> None:
    a = [Condition(("A",), (d,)) for d in (1.0, 2.0, 15.0)] + [Condition(("B",), (2.0,))]
    k = covariance(dosed(), a, a, **{"part @ dose": 1.0})
    correlation = k / k.diagonal().sqrt().outer(k.diagonal().sqrt())
    assert 1 > correlation[0, 1] > correlation[0, 2] > 0
    assert (k[3, :3] == 0).all()
    assert torch.linalg.eigvalsh(k).min() > 0


def test_beyond_the_trained_doses_the_course_is_proportional() -> None:
    """So the effect grows on in one direction with log dose: a monotone extrapolation."""
    k = dosed()
    seen = [Condition(("A",), (d,)) for d in (1.0, 3.0, 15.0)]
    beyond = [Condition(("A",), (d,)) for d in (15.0, 31.0, 255.0)]
    cross = covariance(k, beyond, seen, part=0.3, **{"part @ dose": 1.0})
    shares = torch.tensor([4.0, 5.0, 8.0]).double()
    torch.testing.assert_close(cross / shares[:, None], (cross[:1] / 4).expand(3, 3))
    none = covariance(k, [Condition(("A",), (0.0,))], seen, **{"part @ dose": 1.0})
    assert (none == 0).all()


def test_covariance_with_doses_and_times_can_be_learned() -> None:
    """Gradients of the lengths are finite, for perturbations that share no dose too."""
    lengths = torch.tensor([0.5, 0.5, 0.25], dtype=torch.float64, requires_grad=True)
    a = [Condition(("A",), (1.0,)), Condition(("B",), (2.0,)), Condition(("A", "B"), (3.0, 2.0))]
    k = dosed()
    k.covariance(k.design(a, a), torch.ones(len(k.terms)), Lengths(*lengths)).sum().backward()
    assert torch.isfinite(lengths.grad).all()
    assert lengths.grad[2] != 0
