"""Who beats whom, in words."""

from __future__ import annotations

import pytest

from celldit.errors import UnknownNameError
from celldit.report.numbers import judge


def test_judging_leaves_the_ceiling_out_and_calls_a_tie_a_tie():
    values = {
        "a": {"nmse": 0.5},
        "b": {"nmse": 0.4},
        "ceiling": {"nmse": 0.1},
        "celldit": {"nmse": 0.4},
    }
    (verdict,) = judge(values, ("nmse",), "celldit")
    assert verdict.best == "b"
    assert not verdict.wins
    with pytest.raises(UnknownNameError, match="celdit"):
        judge(values, ("nmse",), "celdit")
