"""States of two times that go together."""

from __future__ import annotations

import numpy as np
import pytest

from celldit.conditions import Condition
from celldit.conditions.states import States
from celldit.inference.time.matched_states import Partners

EARLY, LATE = Condition(time=1.0), Condition(time=2.0)


def states(offsets: list[float], early: list[float], late: list[float]) -> States:
    """States on a line, those of the first time before those of the second."""
    n_states = len(offsets)
    places = tuple((c.context, c.time) for c in (EARLY, LATE) for _ in range(n_states // 2))
    shares = {EARLY: np.array(early), LATE: np.array(late)}
    factors = np.ones((n_states, 1, 1))
    return States(places, np.array(offsets)[:, None], factors, np.ones(n_states), shares)


def test_states_go_to_the_nearest() -> None:
    found = Partners.of(states([-1.0, 1.0, 1.2, -0.8], [0.3, 0.7], [0.7, 0.3]), EARLY, LATE)
    assert found.draw(np.array([0, 1, 1]), np.array([0.1, 0.9, 0.2])).tolist() == [3, 2, 2]


def test_what_all_move_by_does_not_matter() -> None:
    found = Partners.of(states([-1.0, 1.0, 6.2, 4.2], [0.3, 0.7], [0.7, 0.3]), EARLY, LATE)
    assert found.draw(np.array([0, 1]), np.array([0.5, 0.5])).tolist() == [3, 2]


def test_as_many_arrive_as_there_are() -> None:
    found = Partners.of(states([-1.0, 1.0, -1.0, 1.0], [0.8, 0.2], [0.5, 0.5]), EARLY, LATE)
    rng = np.random.default_rng(0)
    start = (rng.random(20_000) < 0.2).astype(np.int64)
    end = found.draw(start, rng.random(20_000))
    assert (end == 3).mean() == pytest.approx(0.5, abs=0.01)
    assert (end[start == 1] == 3).all()
