"""Who becomes whom, as streams between two columns of groups."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from celldit.errors import InputError
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.style import CYCLE, INK

GAP, WIDTH = 0.03, 0.06


@figure
def fate_map(canvas: Canvas, fates: pd.DataFrame, **options: Unpack[FigureOptions]) -> Axes:
    """Draw which groups of cells become which: streams from the left to the right.

    Every group at the left has the same height, since rows of the table are shares of a group.

    Parameters
    ----------
    fates
        What :func:`celldit.tl.fate_map` returns.
    **options
        See :mod:`celldit.pl`.

    Raises
    ------
    InputError
        If `fates` is no such table.

    Examples
    --------
    >>> fates = cd.tl.fate_map(
    ...     adata, model, groupby="cell_type", start=10, end=11
    ... )                                                       # doctest: +SKIP
    >>> cd.pl.fate_map(fates)                                   # doctest: +SKIP
    """
    shares_RC = _shares(fates)
    n_rows, n_columns = shares_RC.shape
    height = 1.2 + 0.45 * max(n_rows, n_columns)
    (ax,) = canvas.panels(1, size=(5.4, height))
    ends = [str(name) for name in fates.columns]
    colors = dict(zip(ends, canvas.colors(ends, CYCLE), strict=True))
    left_R = _places(np.full(n_rows, 1.0 / n_rows))
    right_C = _places(shares_RC.sum(0) / n_rows)
    next_C = right_C[:, 0].copy()
    scale = (1 - GAP * (n_rows - 1)) / n_rows, (1 - GAP * (n_columns - 1)) / n_rows
    for r in range(n_rows):
        low = left_R[r, 0]
        for c in range(n_columns):
            thick = shares_RC[r, c] * scale[0], shares_RC[r, c] * scale[1]
            _stream(ax, low, next_C[c], thick, colors[str(fates.columns[c])])
            low, next_C[c] = low + thick[0], next_C[c] + thick[1]
    for x, names, places, align in (
        (0.0, fates.index, left_R, "right"),
        (1.0, fates.columns, right_C, "left"),
    ):
        for name, (low, high) in zip(map(str, names), places, strict=True):
            color = colors.get(name, "0.6")
            ax.add_patch(Rectangle((x - WIDTH / 2, low), WIDTH, high - low, color=color, lw=0))
            at = x - WIDTH if align == "right" else x + WIDTH
            ax.text(at, (low + high) / 2, name, ha=align, va="center", fontsize=8, color=INK)
    ax.set(xlim=(-0.05, 1.05), ylim=(1.0, 0.0))
    ax.set_xticks([0, 1], [str(fates.index.name or "start"), str(fates.columns.name or "end")])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def _shares(fates: object) -> np.ndarray:
    """The table's numbers, rows of which sum to one."""
    known = isinstance(fates, pd.DataFrame) and fates.size > 0
    values = np.asarray(fates, dtype=object) if known else np.zeros((0, 0))
    try:
        shares_RC = values.astype(np.float64)
    except (TypeError, ValueError):
        shares_RC = np.zeros((0, 0))
    if shares_RC.size == 0 or not np.allclose(shares_RC.sum(axis=1), 1) or shares_RC.min() < 0:
        raise InputError(
            "fates must be the table that cd.tl.fate_map returns, whose rows are shares."
        )
    return shares_RC


def _places(size_N: np.ndarray) -> np.ndarray:
    """Low and high end of each block of a column with gaps, (N, 2)."""
    scaled_N = size_N * (1 - GAP * (len(size_N) - 1))
    low_N = np.concatenate([[0.0], np.cumsum(scaled_N + GAP)[:-1]])
    return np.stack([low_N, low_N + scaled_N], axis=1)


def _stream(ax: Axes, left: float, right: float, thick: tuple[float, float], color: str) -> None:
    """A band that goes from the left column to the right one."""
    if max(thick) <= 0:
        return
    x = WIDTH / 2, 0.5, 1 - WIDTH / 2
    points = [
        (x[0], left), (x[1], left), (x[1], right), (x[2], right),
        (x[2], right + thick[1]), (x[1], right + thick[1]), (x[1], left + thick[0]),
        (x[0], left + thick[0]), (x[0], left),
    ]  # fmt: skip
    curve = [Path.CURVE4] * 3
    codes = [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY]
    ax.add_patch(PathPatch(Path(points, codes), facecolor=color, alpha=0.35, lw=0))
