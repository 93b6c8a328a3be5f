"""What celldit shows while it works: as much as ``scanpy.settings.verbosity`` lets through."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar

#: Work that takes no longer than this, in seconds, goes without a bar.
PATIENCE = 5.0

Item = TypeVar("Item")


class _State(threading.local):
    quiet = False
    #: Whether a bar is there already; one within another would tell of parts of a part.
    busy = False


_STATE = _State()


def speaks() -> bool:
    """Whether notes are wanted: not where scanpy's verbosity is 0, which is errors alone."""
    scanpy = sys.modules.get("scanpy")
    return not _STATE.quiet and (scanpy is None or int(scanpy.settings.verbosity) > 0)


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Show nothing within, if `quiet`."""
    before, _STATE.quiet = _STATE.quiet, quiet or _STATE.quiet
    try:
        yield
    finally:
        _STATE.quiet = before


def counted(items: Sequence[Item], what: str, unit: str) -> Iterator[Item]:
    """Go through some items, with a bar as :func:`late_bar` draws it."""
    with late_bar(what, unit) as show:
        for i, item in enumerate(items):
            yield item
            show(i + 1, len(items))


@contextmanager
def late_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar with the time left over work that takes more than some seconds.

    It is drawn on standard error, or in the notebook, and only where somebody sees it, with `what`
    at the left and units in the plural. What is yielded is to be called with what is done, and of
    how many, as often as one likes.
    """
    from rich import get_console
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    in_notebook = get_console().is_jupyter
    console = get_console() if in_notebook else Console(stderr=True)
    seen = find_spec("ipywidgets") is not None if in_notebook else console.is_terminal
    first, _STATE.busy = not _STATE.busy, True
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        transient=True,
        console=console,
    )
    begun = time.monotonic()

    def show(done: int, total: int) -> None:
        if not bar.tasks:
            waited = time.monotonic() - begun
            if not (seen and first and speaks()) or waited < PATIENCE or done >= total:
                return
            bar.add_task(what, total=total)
            bar.start()
        bar.update(bar.tasks[0].id, completed=done, total=total)

    try:
        yield show
    finally:
        if first:
            _STATE.busy = False
        if bar.tasks:
            bar.stop()
