"""Pace and displacement of a course."""

from __future__ import annotations

import numpy as np
import pytest

from celldit.calibration.fit_time import choose_course, ways_between
from celldit.conditions.time_scale import RESPONSE_RATE


def cells(mean: float, n: int = 200, seed: int = 0, spread: float = 0.3) -> np.ndarray:
    """Two dimensions, the first of which changes with time."""
    noise = np.random.default_rng(seed).normal(0, spread, (n, 2))
    return noise + np.array([mean, 0.0])


def test_cells_that_change_together_are_displaced() -> None:
    own = {t: cells(4 * t, seed=int(t)) for t in (1.0, 2.0, 3.0)}
    course = choose_course({"": own}, (1.0, 3.0))
    assert (course.displacement, course.scale.rate) == (1.0, 0.0)
    (trial,) = course.left_out
    assert trial.displaced < 0.05 < trial.mixed
    assert "chosen on 1 time left out" in course.verdict


def test_cells_that_are_replaced_are_mixed() -> None:
    mixed = np.concatenate([cells(4, 100, 5), cells(12, 100, 6)])
    own = {1.0: cells(4, seed=1), 2.0: mixed, 3.0: cells(12, seed=3)}
    course = choose_course({"": own}, (1.0, 3.0))
    assert course.displacement == 0.0
    assert "mixed" in course.verdict


def test_a_response_that_slows_down_has_its_pace() -> None:
    own = {t: cells(8 * (1 - np.exp(-t)), seed=int(t)) for t in (0.0, 1.0, 3.0)}
    assert choose_course({"": own}, (0.0, 3.0)).scale.rate == RESPONSE_RATE


def test_without_a_time_to_leave_out_defaults_are_said() -> None:
    course = choose_course({"": {1.0: cells(0), 2.0: cells(4, seed=1)}}, (1.0, 2.0))
    assert course.scale.rate == 0
    assert "assumed" in course.verdict
    answer = choose_course({"": {0.0: cells(0), 2.0: cells(4, seed=1)}}, (0.0, 2.0))
    assert answer.scale.rate == RESPONSE_RATE
    # Cells that are under way already answer to nothing that was done at time 0.
    wide = choose_course({"": {0.0: cells(0, spread=2), 2.0: cells(4, seed=1)}}, (0.0, 2.0))
    assert wide.scale.rate == 0


def test_ways_of_a_shift_are_the_shift() -> None:
    early = cells(0)
    there, back = ways_between(early, early + np.array([3.0, 1.0]))
    np.testing.assert_allclose(there, np.tile([3.0, 1.0], (200, 1)), atol=1e-9)
    np.testing.assert_allclose(back, -there, atol=1e-9)


def test_few_cells_choose_nothing() -> None:
    own = {t: cells(4 * t, 10) for t in (1.0, 2.0, 3.0)}
    assert choose_course({"": own}, (1.0, 3.0)).left_out == ()


@pytest.mark.parametrize("rate", [0.0, 1.5, 3.0])
def test_shares_of_a_scale_add_up(rate: float) -> None:
    from celldit.conditions.time_scale import TimeScale

    scale = TimeScale(0, 10, rate)
    first, second = scale.share(0, 10, 4), scale.share(4, 10, 7)
    assert scale.share(0, 10, 7) == pytest.approx(first + (1 - first) * second)
    assert (scale.share(0, 10, 0), scale.share(0, 10, 10)) == (0, 1)
    assert scale.progress(-3) == 0
