"""Colours, and how a figure is begun and finished."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends import BackendFilter, backend_registry

from celldit.errors import FileError, InputError

__all__ = ["CONTROL", "CYCLE", "GENERATED", "INK", "MEASURED", "PREDICTED", "finish", "panels"]

# Okabe & Ito (2008), Color Universal Design.
CONTROL = "#999999"
MEASURED = "#0072B2"
PREDICTED = "#D55E00"
GENERATED = "#009E73"
INK = "#333333"
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.titlelocation": "left",
    "axes.grid": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Celldit's settings within, the user's own again afterwards."""
    # Not rc_context: it takes back all settings, so also that of the notebook's backend, which the
    # first figure loads and which says that figures are to be shown.
    before = {name: mpl.rcParams[name] for name in STYLE}
    mpl.rcParams.update(STYLE)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def panels(
    n: int, ax: Axes | Sequence[Axes] | None, *, size: tuple[float, float], columns: int = 4
) -> list[Axes]:
    """Begin a figure with n panels, or take the axes given.

    Parameters
    ----------
    n
        Number of panels.
    ax
        The user's axes, one for each panel, or None.
    size
        Width and height of a panel in inches.
    columns
        Most panels side by side.

    Raises
    ------
    InputError
        If the number of axes given is not the number of panels.
    """
    if ax is not None:
        given = [ax] if isinstance(ax, Axes) else list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != n or not all(isinstance(a, Axes) for a in given):
            raise InputError(
                f"ax= must be {n} matplotlib axes, one for each panel, but holds {len(given)}; "
                "leave it out for a new figure."
            )
        return given
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(size[0] * columns, size[1] * rows),
        squeeze=False,
        layout="constrained",
    )
    for unused in axes.ravel()[n:]:
        figure.delaxes(unused)
    return list(axes.ravel()[:n])


def finish(axes: Sequence[Axes], *, show: bool | None, save: Any, own: bool) -> None:
    """Save and show a figure, as asked.

    Parameters
    ----------
    axes
        Its axes.
    show
        Whether to show it; None shows a new figure when there is a window to show it in.
    save
        File name, or None.
    own
        Whether the figure is new, and not the user's.

    Raises
    ------
    FileError
        If the file cannot be written.
    InputError
        If its ending is not a format that matplotlib writes.
    """
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    if save is not None:
        path = Path(os.fspath(save))
        formats = figure.canvas.get_supported_filetypes()
        if path.suffix.lstrip(".").lower() not in formats:
            raise InputError(
                f"save={str(save)!r} must end in one of {', '.join(sorted(formats))}, such as "
                "'figure.pdf'."
            )
        try:
            figure.savefig(path, dpi=200, bbox_inches="tight")
        except OSError as error:
            raise FileError(f"Cannot write the figure to {path}: {error.strerror}.") from error
    has_window = plt.get_backend().lower() in {
        name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    }
    if show is None:
        show = own and save is None and has_window
    if show:
        plt.show()
