"""What lies outside the doses and times of training is said, with the range."""

from __future__ import annotations

from celldit.conditions import Condition
from celldit.conditions.ranges import Ranges

TRAINED = [
    Condition((), (), "", 1.0),
    Condition(("A",), (2.0,), "", 1.0),
    Condition(("A", "B"), (8.0, 1.0), "", 3.0),
    Condition(("A",), (0.0,), "", 2.0),
]


def test_ranges_of_training() -> None:
    found = Ranges.of(TRAINED)
    assert found.time == (1.0, 3.0)
    assert found.doses == {"A": (2.0, 8.0), "B": (1.0, 1.0)}
    assert Ranges.of([Condition(("A",))]) == Ranges({}, None)


def test_inside() -> None:
    ranges = Ranges.of(TRAINED)
    for dose in (0.0, 2.0, 5.0, 8.0):
        assert ranges.outside(Condition(("A",), (dose,), "", 2.5)) == []
    assert ranges.outside(Condition((), (), "", 3.0)) == []
    # Of a perturbation described by features only, no dose was trained.
    assert ranges.outside(Condition(("new",), (99.0,), "", 3.0)) == []


def test_outside() -> None:
    ranges = Ranges.of(TRAINED)
    assert ranges.outside(Condition(("A", "B"), (1.0, 3.0), "", 0.5)) == [
        "Time 0.5 lies outside the trained range 1 to 3",
        "Dose 1 of A lies outside the trained range 2 to 8",
        "Dose 3 of B differs from the only trained dose, 1",
    ]
