"""The trained times about a condition."""

from __future__ import annotations

import numpy as np
import pytest

from celldit.conditions import Condition
from celldit.conditions.time_scale import TimeScale, bracketing

TRAINED = [("a", 10.0), ("a", 12.0), ("a", 11.0), ("b", 10.0), ("b", 14.0)]


def about(*times: float, context: str = "a") -> list[tuple[float | None, float | None, float]]:
    asked = [Condition(("STAT1",), context=context, time=time) for time in times]
    earlier, later, share_Q = bracketing(asked, TRAINED, TimeScale(10, 14))
    assert all(c.parts == ("STAT1",) for c in (*earlier, *later))
    return [
        (low.time, high.time, share)
        for low, high, share in zip(earlier, later, share_Q, strict=True)
    ]


def test_a_trained_time_is_where_it_is() -> None:
    assert about(10, 11, 12) == [(10, 10, 0), (11, 11, 0), (12, 12, 0)]


def test_between_times_are_the_neighbours_of_the_context() -> None:
    assert about(10.25, 11.5) == [(10, 11, 0.25), (11, 12, 0.5)]
    assert about(11, context="b") == [(10, 14, 0.25)]


def test_a_response_has_come_further_than_its_time_says() -> None:
    asked = [Condition(context="b", time=12.0)]
    *_, share_Q = bracketing(asked, TRAINED, TimeScale(10, 14, rate=3.0))
    # 1 - exp(-1.5) of 1 - exp(-3).
    assert share_Q[0] == pytest.approx(0.8176, abs=1e-4)


def test_outside_is_the_nearest() -> None:
    assert about(2, 20) == [(10, 10, 0), (12, 12, 0)]


def test_where_no_time_is_known_conditions_stay() -> None:
    assert about(2, context="new") == [(2, 2, 0)]
    earlier, later, share_Q = bracketing([Condition(context="a")], [("a", None)], TimeScale())
    assert earlier == later == [Condition(context="a")]
    assert np.array_equal(share_Q, [0])
