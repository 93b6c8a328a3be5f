"""Names beside points, without one name covering another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from sklearn.isotonic import isotonic_regression

from celldit.pl.style import INK

DISTANCES = (7, 13, 20, 29, 40)
#: Sides first, since names are wider than high; where places cost the same, the first is taken.
ANGLES = np.deg2rad([0, 180, 30, 150, -30, -150, 60, 120, -60, -120, 90, -90])
#: Shortest and longest line to a name, in points; longer ones are hard to follow.
NEAREST, FURTHEST = 4.0, 70.0
#: What it costs to cover a point with a name, and with the line to it, in points of distance.
COVERED, CROSSED = 12.0, 5.0
#: How far above its point a name stands upright, in points.
ABOVE = 14.0
#: Radius of a dot, in points.
DOT = 2.0


def place_labels(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    *,
    avoid: np.ndarray | None = None,
    size: float = 7.5,
) -> list[str]:
    """Write each name at the best free place around its point, with a thin line to it.

    Points come the most important first, a name for each; `avoid` are further points that names
    and lines should not cover, shape (n, 2), all in data coordinates; `size` is that of the font in
    points. A place is free if the name overlaps no other name and no line, and its line crosses
    none of these; the best of them is near, and covers few points. The limits of the axes must not
    change afterwards. A name that fits nowhere is left out; those that were written are returned.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    points = ax.transData.transform(np.column_stack([x, y]))
    others = ax.transData.transform(avoid) if avoid is not None else np.empty((0, 2))
    unit = figure.dpi / 72
    dots = [Bbox(point + DOT * unit * np.array([[-1.0], [1.0]])) for point in points]
    shown = [text.get_window_extent(renderer) for text in ax.texts if text.get_text()]
    page = _Page(ax.get_window_extent(renderer), others, unit, [*dots, *shown])
    line = {"arrowstyle": "-", "color": "#888888", "lw": 0.5, "shrinkA": 0, "shrinkB": 1}
    written = []
    for point, name, at in zip(points, names, zip(x, y, strict=True), strict=True):
        measured = ax.text(0, 0, name, fontsize=size)
        extent = measured.get_window_extent(renderer)
        measured.remove()
        box = page.best(point, extent)
        if box is None:
            continue
        # The line starts where the name is nearest, not in its middle.
        low, high = _corners(box)
        relpos = tuple((_nearest(box, point) - low) / (high - low))
        ax.annotate(
            name,
            at,
            xytext=tuple((low - point) / unit),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=size,
            color=INK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops={**line, "patchA": None, "relpos": relpos},
        )
        page.add(point, box)
        written.append(name)
    return written


def stand_labels(
    ax: Axes, x: np.ndarray, y: float, names: Sequence[str], *, size: float = 7.5
) -> None:
    """Write names upright above points in a row at the top, which are too near for names beside.

    Names keep the order of their points, so lines to them do not cross. The limit of the axes is
    moved up to make room.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()
    unit, inside = figure.dpi / 72, ax.get_window_extent()
    order = np.argsort(x, kind="stable")
    points = ax.transData.transform(np.column_stack([x[order], np.full(len(x), y)]))[:, 0]
    steps = 1.25 * size * unit * np.arange(len(x))
    half, last = size * unit, float(steps[-1])
    # The nearest places that are a step apart.
    places = steps + isotonic_regression(
        points - steps, y_min=inside.x0 + half, y_max=max(inside.x1 - half - last, inside.x0 + half)
    )
    line = {"arrowstyle": "-", "color": "#888888", "lw": 0.5, "shrinkA": 1, "shrinkB": 2}
    written = [
        ax.annotate(
            names[i],
            (x[i], y),
            xytext=((place - point) / unit, ABOVE),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=size,
            color=INK,
            arrowprops={**line, "patchA": None, "relpos": (0.5, 0)},
        )
        for i, place, point in zip(order, places, points, strict=True)
    ]
    longest = max(Text.get_window_extent(text).height for text in written)
    share = min((longest + 1.4 * ABOVE * unit) / inside.height, 0.6)
    bottom = ax.get_ylim()[0]
    ax.set_ylim(bottom, bottom + (y - bottom) / (1 - share))


@dataclass(eq=False)
class _Page:
    """What stands in an axes already, in pixels."""

    inside: Bbox
    others_N2: np.ndarray  # points that should stay visible
    unit: float  # pixels of a point
    taken: list[Bbox]  # boxes that names must not overlap
    names: list[Bbox] = field(default_factory=list)  # boxes of those that were placed
    leaders: list[Path] = field(default_factory=list)  # the lines to them

    def best(self, point: np.ndarray, extent: Bbox) -> Bbox | None:
        """The free place of least cost for a text of some extent; None where there is none."""
        least, found = np.inf, None
        for box in _spots(point, extent, self.unit, self.inside):
            length = float(np.linalg.norm(_nearest(box, point) - point)) / self.unit
            if not NEAREST <= length <= FURTHEST or length >= least:
                continue
            if not self._is_free(point, box):
                continue
            cost = length + self._hidden(point, box)
            if cost < least:
                least, found = cost, box
        return found

    def add(self, point: np.ndarray, box: Bbox) -> None:
        """Keep a name's box and its line."""
        # Two names without a gap between them read as one; heights are rounded to pixels.
        self.taken.append(box.padded(3 * self.unit, 0.5 * self.unit))
        self.names.append(box)
        self.leaders.append(_leader(point, box))

    def _is_free(self, point: np.ndarray, box: Bbox) -> bool:
        (low, high), (first, last) = _corners(box), _corners(self.inside)
        if (low < first).any() or (high > last).any():
            return False
        if any(box.overlaps(other) for other in self.taken):
            return False
        leader = _leader(point, box)
        return not (
            any(line.intersects_bbox(box) or line.intersects_path(leader) for line in self.leaders)
            or any(leader.intersects_bbox(name) for name in self.names)
        )

    def _hidden(self, point: np.ndarray, box: Bbox) -> float:
        """What the points cost that a name and its line would cover."""
        others_N2, (low, high) = self.others_N2, _corners(box)
        covered = ((others_N2 > low) & (others_N2 < high)).all(axis=1)
        start = _nearest(box, point)
        along = point - start
        share_N = ((others_N2 - start) @ along / max(float(along @ along), 1e-9)).clip(0, 1)
        off_N = np.linalg.norm(others_N2 - start - share_N[:, None] * along, axis=1)
        crossed = off_N < DOT * self.unit
        return float(COVERED * covered.sum() + CROSSED * crossed.sum())


def _leader(point: np.ndarray, box: Bbox) -> Path:
    return Path(np.array([_nearest(box, point), point]))


def _nearest(box: Bbox, point: np.ndarray) -> np.ndarray:
    """The place in a box that is nearest to a point."""
    return np.asarray(np.clip(point, *_corners(box)))


def _corners(box: Bbox) -> tuple[np.ndarray, np.ndarray]:
    return np.array([box.x0, box.y0]), np.array([box.x1, box.y1])


def _spots(point: np.ndarray, extent: Bbox, unit: float, inside: Bbox) -> Iterator[Bbox]:
    """Places for a text of some extent: around a point, then everywhere in the axes."""
    (px, py), width, height = point, extent.width, extent.height
    for distance, angle in product(DISTANCES, ANGLES):
        dx, dy = distance * unit * np.cos(angle), distance * unit * np.sin(angle)
        # The side of the text that faces the point touches the circle, whatever its length.
        left = px + dx - (width if np.cos(angle) < -0.1 else 0)
        if abs(np.cos(angle)) <= 0.1:
            left = px - width / 2
        yield Bbox.from_bounds(left, py + dy - height / 2, width, height)
    edge = NEAREST * unit
    for bottom in np.arange(inside.y0 + edge, inside.y1 - edge - height, height):
        for left in np.arange(inside.x0 + edge, inside.x1 - edge - width, height):
            yield Bbox.from_bounds(left, bottom, width, height)
