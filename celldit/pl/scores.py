"""Methods side by side, with the ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.catalogue import CEILING, METRICS
from celldit.evaluation.challenge.scores import COMPOSITE
from celldit.pl.figure import Canvas, FigureOptions, figure, known_names
from celldit.pl.style import CONTROL, INK, MEASURED, PREDICTED

#: Ends of the interval of a composite.
ENDS = ("low", "high")
ARROWS = {"higher": "higher is better", "lower": "lower is better", "nearer": "nearer to {ideal:g}"}


@figure
def scores(
    canvas: Canvas,
    table: pd.DataFrame,
    metrics: Sequence[str] | str | None = None,
    *,
    highlight: str | None = None,
    **options: Unpack[FigureOptions],
) -> list[Axes] | Axes:
    """Draw the table of :func:`celldit.tl.compare`: a panel for each metric, a row for each method.

    Methods are ordered by the first metric, the best on top. The dashed line is the ceiling: half
    of the measured cells as a prediction of the other half. A composite has its interval.

    Parameters
    ----------
    table
        What :func:`celldit.tl.compare` returns.
    metrics
        Columns to draw; None for all.
    highlight
        Method to set apart by colour; None for ``"celldit"`` if it is there.
    **options
        See :mod:`celldit.pl`; one axes for each metric.

    Raises
    ------
    UnknownNameError
        If a metric or the highlighted method is not in the table.
    InputError
        If the table has no method.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.compare({"celldit": predicted}, measured, measured)
    >>> axes = cd.pl.scores(table)
    """
    if not isinstance(table, pd.DataFrame) or table.empty or not len(table.columns):
        raise InputError("table must be what cd.tl.compare returns, with a row for each method.")
    drawn = [name for name in table.columns if name not in ENDS]
    metrics = drawn if metrics is None else metrics
    wanted = known_names(metrics, list(table.columns), "metrics", "column in the table")
    if not wanted:
        raise InputError("metrics=[] names no column; leave it out for all of them.")
    methods = table.drop(index=CEILING, errors="ignore")
    if methods.empty:
        raise InputError("The table has a ceiling but no method; pass predictions to compare.")
    if highlight is not None and highlight not in methods.index:
        raise UnknownNameError.among("method in the table", highlight, methods.index)
    chosen = highlight or next((m for m in methods.index if str(m).lower() == "celldit"), None)
    losses = [_loss(wanted[0], v) for v in methods[wanted[0]]]
    order = np.argsort(-np.nan_to_num(np.array(losses), nan=np.inf), kind="stable")
    methods = methods.iloc[order]
    own, others = canvas.colors(("highlight", "others"), (PREDICTED, MEASURED))
    colors = [own if method == chosen else others for method in methods.index]
    axes = canvas.panels(len(wanted), size=(2.7, 1.15 + 0.26 * len(methods)))
    for i, (one, name) in enumerate(zip(axes, wanted, strict=True)):
        _dots(one, methods, name, colors)
        if name == COMPOSITE and set(ENDS) <= set(methods.columns):
            low, high = (methods[end].to_numpy(dtype=np.float64) for end in ENDS)
            one.hlines(np.arange(len(low)), low, high, color=CONTROL, lw=2, zorder=1)
        if CEILING in table.index:
            one.axvline(float(table.loc[CEILING, name]), color=INK, lw=1, ls="--", zorder=0)
        if i % 4:
            one.set_yticklabels([])
    if CEILING in table.index:
        _name_ceiling(axes[0], float(table.loc[CEILING, wanted[0]]))
    return axes if len(axes) > 1 else axes[0]


def _loss(name: str, value: float) -> float:
    metric = METRICS.get(name)
    # A score, (u - b) / (r - b), is better higher, whatever its metric.
    return -float(value) if metric is None else metric.loss(float(value))


def _dots(ax: Axes, methods: pd.DataFrame, name: str, colors: Sequence[Any]) -> None:
    values = methods[name].to_numpy(dtype=np.float64)
    rows = np.arange(len(values))
    ax.hlines(rows, 0, 1, color="#E5E5E5", lw=0.8, transform=ax.get_yaxis_transform(), zorder=-1)
    ax.scatter(values, rows, s=34, c=colors, zorder=3, clip_on=False)
    for row in rows[~np.isfinite(values)]:
        ax.annotate(
            "no value",
            (0.03, row),
            xycoords=ax.get_yaxis_transform(),
            va="center",
            fontsize=7.5,
            color=CONTROL,
        )
    ax.set_yticks(rows, [str(m) for m in methods.index])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.12)
    metric = METRICS.get(name)
    better = "1 is the ceiling, 0 the baseline"
    if metric is not None:
        better = ARROWS[metric.better].format(ideal=metric.ideal)
    ax.set_title(name.replace("_", " "))
    ax.set_xlabel(better, fontsize=8)


def _name_ceiling(ax: Axes, value: float) -> None:
    if np.isfinite(value):
        ax.annotate(
            "ceiling",
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-2, -1),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=7.5,
            color=INK,
        )
