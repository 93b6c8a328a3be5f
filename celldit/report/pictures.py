"""The pictures of a report, as SVG that takes its ink from the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import Collection

from celldit.evaluation.catalogue import CEILING, METRICS
from celldit.evaluation.expression import condition_name
from celldit.pl.calibration import calibration
from celldit.pl.distributions import distributions
from celldit.pl.effects.effect import effect
from celldit.pl.embedding import embedding
from celldit.pl.style import CONTROL, CYCLE, INK, MEASURED, PREDICTED, STYLE
from celldit.report.numbers import MAIN, NO_CHANGE, Numbers

#: More conditions than this make a picture nobody reads; the table has them all.
MOST_CONDITIONS = 30
_DISTRIBUTION_GENES = 4
#: Cells of each kind in a plane; every one is a drawn element.
_MOST_CELLS = 500


@dataclass(frozen=True)
class Picture:
    """An SVG element, and what it shows, for those who cannot see it."""

    svg: str
    about: str


@contextmanager
def _offscreen() -> Iterator[None]:
    """Figures of the report neither show themselves nor read mathematics into labels."""
    extra: dict[Any, Any] = {
        "text.parse_math": False,
        "figure.max_open_warning": 0,
        "svg.hashsalt": "celldit",
        "savefig.transparent": True,
        "font.family": ["DejaVu Sans"],
    }
    with mpl.rc_context({**STYLE, **extra}):
        yield


def overview_picture(numbers: Numbers) -> Picture | None:
    """How much of the way to a replicate each method closes, the best on top."""
    found = {m: p for m, p in numbers.closed.items() if np.isfinite(p.share)}
    if not found:
        return None
    order = sorted(found, key=lambda m: found[m].share)
    with _offscreen():
        figure, ax = plt.subplots(figsize=(4.6, 0.9 + 0.3 * len(order)), layout="constrained")
        for y, method in enumerate(order):
            color = PREDICTED if method == numbers.name else MEASURED
            one = found[method]
            if np.isfinite(one.low):
                ax.hlines(y, one.low, one.high, color=color, lw=2, alpha=0.5)
            ax.scatter([one.share], [y], s=36, color=color, zorder=3)
        for x, style in ((0.0, ":"), (1.0, "--")):
            ax.axvline(x, color=INK, lw=1, ls=style, zorder=0)
        ax.set_yticks(range(len(order)), [_short(method, 22) for method in order])
        ax.set_ylim(-0.6, len(order) - 0.4)
        ax.tick_params(axis="y", length=0)
        ax.set_xticks([0.0, 0.5, 1.0], ["no change", "half", "replicate"])
        low, high = ax.get_xlim()
        ax.set_xlim(min(low, -0.1), max(high, 1.1))
        about = "Share of the way from no change to a replicate that each method closes"
        return _picture(figure, about)


def condition_pictures(numbers: Numbers) -> list[Picture]:
    """Every condition of one metric a row: prediction, baselines and ceiling; rows alike in all."""
    table = numbers.table
    own = table[table["method"] == numbers.name]
    shown = [m for m in MAIN if m in set(table["metric"])]
    if not shown:
        return []
    first = own[own["metric"] == shown[0]].set_index(["perturbation", "context"])["value"].dropna()
    losses = first.map(METRICS[shown[0]].loss).sort_values(ascending=False, kind="stable")
    kept = list(losses.index)[-MOST_CONDITIONS:]
    if not kept:
        return []
    pictures = []
    with _offscreen():
        for metric in shown:
            rows = own[own["metric"] == metric].set_index(["perturbation", "context"])
            rows = rows.reindex(pd.MultiIndex.from_tuples(kept, names=rows.index.names))
            about = f"{METRICS[metric].about}, condition by condition"
            pictures.append(_picture(_rows_figure(numbers, metric, rows.reset_index()), about))
    return pictures


def effect_pictures(
    measured: ad.AnnData,
    predicted: ad.AnnData,
    perturbations: list[str],
    basis: Literal["effect", "pca", "umap"],
    seed: int,
) -> dict[str, list[Picture]]:
    """Shifts, distributions of the largest genes, and cells in one plane, by perturbation."""
    found: dict[str, list[Picture]] = {}
    with _offscreen():
        for label in perturbations:
            axes = effect(measured, predicted, label, show=False)
            assert isinstance(axes, Axes)  # one perturbation, one panel
            pictures = [
                _picture(axes.figure, f"{label}: predicted against measured shift of genes")
            ]
            n_genes = min(_DISTRIBUTION_GENES, measured.n_vars)
            figure, panels = plt.subplots(2, 2, figsize=(4.0, 3.8), layout="constrained")
            for unused in panels.ravel()[n_genes:]:
                figure.delaxes(unused)
            distributions(
                measured,
                predicted,
                perturbation=label,
                n_genes=n_genes,
                ax=list(panels.ravel()[:n_genes]),
                show=False,
            )
            pictures.append(_picture(figure, f"{label}: distributions of the most changed genes"))
            _, panel = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
            plane = embedding(
                measured,
                predicted,
                perturbation=label,
                basis=basis,
                max_cells=_MOST_CELLS,
                seed=seed,
                ax=panel,
                show=False,
            )
            pictures.append(
                _picture(plane.figure, f"{label}: measured and predicted cells in a plane")
            )
            found[label] = pictures
    return found


def calibration_picture(measured: ad.AnnData, effects: pd.DataFrame) -> Picture:
    """How often measured fold changes lie in the predicted intervals."""
    with _offscreen():
        figure = calibration(measured, effects, show=False).figure
        return _picture(figure, "Share of measurements inside the predicted intervals")


def _rows_figure(numbers: Numbers, metric: str, rows: pd.DataFrame) -> Any:
    keys = list(zip(rows["perturbation"], rows["context"], strict=True))
    methods = [m for m in dict.fromkeys(numbers.table["method"]) if m != numbers.name]
    values = numbers.table[numbers.table["metric"] == metric].set_index(
        ["method", "perturbation", "context"]
    )["value"]
    figure, ax = plt.subplots(figsize=(3.8, 1.5 + 0.24 * len(keys)), layout="constrained")
    colors = cycle((CYCLE[0], *CYCLE[2:6]))
    y = np.arange(len(keys))
    ax.hlines(y, 0, 1, color="#DDDDDD", lw=0.8, transform=ax.get_yaxis_transform(), zorder=-1)
    for method in methods:
        x = np.array([values.get((method, *key), np.nan) for key in keys], dtype=np.float64)
        if method == CEILING:
            ax.scatter(
                x, y, marker="|", s=90, color=INK, lw=1.6, label=_short(method, 22), zorder=4
            )
        else:
            color = CONTROL if method == NO_CHANGE else next(colors)
            ax.scatter(x, y, s=20, color=color, label=_short(method, 22), zorder=3)
    x = rows["value"].to_numpy(dtype=np.float64)
    ends = rows[["low", "high"]].to_numpy(dtype=np.float64)
    if np.isfinite(ends).any():
        ax.hlines(y, ends[:, 0], ends[:, 1], color=PREDICTED, lw=2, alpha=0.5, zorder=3)
    ax.scatter(x, y, s=36, color=PREDICTED, label=_short(numbers.name, 22), zorder=5)
    ax.set_yticks(y, [_short(condition_name(*key)) for key in keys])
    ax.set_ylim(-0.6, len(keys) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.06)
    better = METRICS[metric].better
    ax.set_xlabel(f"{better} is better" if better != "nearer" else "nearer to ideal is better")
    # Over the labels, too: above the axes alone it would be cut.
    figure.suptitle(METRICS[metric].about, x=0.02, ha="left", fontsize=10)
    labels = [_short(method, 22) for method in (*methods, numbers.name)]
    # Three columns of short names, or two of long ones, are as wide as the picture.
    columns = 3 if max(map(len, labels)) <= 12 else 2
    figure.legend(loc="outside lower center", ncols=columns, handletextpad=0.2, columnspacing=1.0)
    return figure


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _picture(figure: Any, about: str) -> Picture:
    buffer = io.StringIO()
    for artist in figure.findobj(Collection):
        # Points that are drawn, not pixels, can follow the page's colours.
        artist.set_rasterized(False)
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes here and by the browser's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        # Very long labels leave no room for a layout; the picture is drawn all the same.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True, dpi=150)
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Ink and paper follow the page, so that one picture serves light and dark.
    ink = "|".join(("#000000", "#333333", "#333"))
    text = re.sub(rf"(fill|stroke): ?({ink})\b", r"\1: currentColor", text)
    text = re.sub(r"(fill|stroke): ?(#ffffff|white)\b", r"\1: var(--paper)", text)
    text = re.sub(r"stroke: ?(#dddddd|#e5e5e5)\b", "stroke: var(--line)", text, flags=re.I)
    for color, variable in ((MEASURED, "measured"), (PREDICTED, "predicted")):
        text = re.sub(rf"(fill|stroke): ?{color}\b", rf"\1: var(--{variable})", text, flags=re.I)
    return Picture(text.replace("<svg ", '<svg class="plot" ', 1), about)
