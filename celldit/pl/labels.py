"""Names beside points, without one name covering another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from celldit.pl.style import INK

DISTANCES = (7, 13, 20, 29, 40, 53, 68)
ANGLES = np.deg2rad([0, 180, 30, 150, -30, -150, 60, 120, -60, -120, 90, -90])


def place_labels(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    *,
    avoid: np.ndarray | None = None,
    size: float = 7.5,
) -> list[str]:
    """Write each name at the nearest free place around its point, with a thin line to it.

    Points come the most important first, a name for each; `avoid` are further points that names
    should not cover, shape (n, 2), all in data coordinates; `size` is that of the font in points.
    The limits of the axes must not change afterwards. A name that fits nowhere is left out; those
    that were written are returned.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    points = ax.transData.transform(np.column_stack([x, y]))
    others = ax.transData.transform(avoid) if avoid is not None else np.empty((0, 2))
    unit, inside = figure.dpi / 72, ax.get_window_extent(renderer)
    taken = [
        Bbox.from_bounds(px - 2 * unit, py - 2 * unit, 4 * unit, 4 * unit) for px, py in points
    ]
    taken += [text.get_window_extent(renderer) for text in ax.texts if text.get_text()]
    line = {"arrowstyle": "-", "color": "#888888", "lw": 0.5, "shrinkA": 0, "shrinkB": 1}
    written = []
    for (px, py), name, at in zip(points, names, zip(x, y, strict=True), strict=True):
        text = ax.annotate(
            name,
            at,
            xytext=(0, 0),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=size,
            color=INK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops=line,
        )
        # Of the text alone; an annotation's own extent includes its line.
        spots = [
            box
            for box in _spots(px, py, Text.get_window_extent(text, renderer), unit)
            if inside.x0 <= box.x0 and box.x1 <= inside.x1
            and inside.y0 <= box.y0 and box.y1 <= inside.y1
            and not any(box.overlaps(other) for other in taken)
        ]  # fmt: skip
        if not spots:
            text.remove()
            continue
        # Rather over a point than not at all.
        spot = next((box for box in spots if not _covers(box, others)), spots[0])
        text.set_position(((spot.x0 - px) / unit, (spot.y0 - py) / unit))
        # Two names without a gap between them read as one.
        taken.append(spot.padded(3 * unit, 0))
        written.append(name)
    return written


def _spots(px: float, py: float, extent: Bbox, unit: float) -> Iterator[Bbox]:
    """Places around a point for a text of some extent, the nearest first."""
    for distance, angle in product(DISTANCES, ANGLES):
        dx, dy = distance * unit * np.cos(angle), distance * unit * np.sin(angle)
        # The side of the text that faces the point touches the circle, whatever its length.
        left = px + dx - (extent.width if np.cos(angle) < -0.1 else 0)
        if abs(np.cos(angle)) <= 0.1:
            left = px - extent.width / 2
        bottom = py + dy - extent.height / 2
        yield Bbox.from_bounds(left, bottom, extent.width, extent.height)


def _covers(box: Bbox, points_N2: np.ndarray) -> bool:
    return bool(((points_N2 > box.min) & (points_N2 < box.max)).all(axis=1).any())
