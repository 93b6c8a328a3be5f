"""The kernel is a covariance, and its terms say what they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.conditions import Condition, ConditionKernel
from celldit.errors import InputError

POSITIONS = {("x", None): np.zeros(3), ("y", None): np.ones(3), ("z", None): 5 * np.ones(3)}
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
    return k.covariance(k.design(a, b), chosen, torch.tensor(0.5))


@given(st.lists(condition, min_size=1, max_size=8), st.integers(0, 1000))
def test_symmetric_and_positive(conditions: list[Condition], seed: int) -> None:
    k = kernel(features=True)
    weights = torch.from_numpy(np.random.default_rng(seed).gamma(1, 1, len(k.terms)))
    total = k.covariance(k.design(conditions, conditions), weights, torch.tensor(0.5))
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


def test_terms_appear_only_where_they_can_differ() -> None:
    one = kernel(positions={("x", None): np.zeros(3)})
    assert one.terms == ("common", "part", "interaction")
    assert "feature:f" in kernel(features=True).terms


@pytest.mark.parametrize(("dose", "share"), [(0.0, 0.0), (2.0, 1.0), (6.0, 2.0), (14.0, 3.0)])
def test_dose_counts_on_the_log_scale(dose: float, share: float) -> None:
    k = ConditionKernel(("A",), (2.0,), {}, {("", None): np.zeros(2)})
    amounts = k.amounts([Condition(("A",), (dose,))], ["A"])
    assert float(amounts) == pytest.approx(share)


def test_missing_features_are_an_error_that_names_them() -> None:
    with pytest.raises(InputError, match=r"features 'f' have no row for Z;"):
        kernel(features=True).design([Condition(("Z",), None, "x")], [])
