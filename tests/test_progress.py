"""Bars come late, once, where somebody sees them, and as scanpy's verbosity says."""

from __future__ import annotations

import io
from typing import Any

import pytest
import rich
import rich.console
import scanpy as sc

from celldit import progress
from celldit.progress import counted, late_bar, quietly, speaks


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal would show, with no patience."""
    shown = io.StringIO()
    rich.get_console()  # of everybody, and kept
    terminal = rich.console.Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr(rich.console, "Console", lambda **_: terminal)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    return shown


@pytest.fixture
def verbosity() -> Any:
    before = sc.settings.verbosity
    yield
    sc.settings.verbosity = before


def test_a_bar_counts_with_the_time_left(screen: io.StringIO) -> None:
    assert list(counted(range(4), "scoring", "conditions")) == [0, 1, 2, 3]
    assert "scoring" in screen.getvalue()
    assert "4/4 conditions" in screen.getvalue()


def test_work_that_is_quick_goes_without(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    list(counted(range(4), "scoring", "conditions"))
    assert screen.getvalue() == ""


def test_a_bar_within_a_bar_is_left_out(screen: io.StringIO) -> None:
    for _ in counted(range(3), "ranking", "perturbations"):
        list(counted(range(3), "sampling", "cells"))
    assert "perturbations" in screen.getvalue()
    assert "cells" not in screen.getvalue()
    list(counted(range(3), "sampling", "cells"))
    assert "cells" in screen.getvalue()


def test_scanpys_verbosity_and_quiet_commands(screen: io.StringIO, verbosity: Any) -> None:
    assert speaks()
    with quietly():
        assert not speaks()
        with quietly(False):
            assert not speaks()
    sc.settings.verbosity = 0
    assert not speaks()
    with late_bar("sampling", "cells") as show:
        show(1, 3)
        show(2, 3)
    assert screen.getvalue() == ""


def test_the_end_of_training_is_silent_below_verbosity_one(
    tiny_screen: Any, train_tiny: Any, verbosity: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import celldit as cd
    from celldit.training.loop.trainer import trainer_defaults

    for level in (1, 0):
        sc.settings.verbosity = level
        assert trainer_defaults({}, "flow")["enable_progress_bar"] == (level > 0)
        assert trainer_defaults({"enable_progress_bar": True}, "flow")["enable_progress_bar"]
        model = cd.CellDiT(tiny_screen, tokenizer="modules")
        model.train(max_epochs=0)
        assert (model.summary() in capsys.readouterr().out) == (level > 0)
