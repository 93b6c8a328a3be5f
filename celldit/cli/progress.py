"""A bar with the time left while cells are sampled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["sampling_bar"]


@contextmanager
def sampling_bar(what: str, *, hidden: bool) -> Iterator[None]:
    """Draw how many cells are sampled, on standard error, where somebody can see it.

    Parameters
    ----------
    what
        Name shown at the left.
    hidden
        Whether to draw nothing, as ``--quiet`` and ``--json`` ask.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from celldit.io.sampling import watched

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} cells"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=1)
        with watched(lambda done, total: bar.update(task, completed=done, total=total)):
            yield
