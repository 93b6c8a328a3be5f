"""Bars of the gene sets that carry a predicted shift."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from celldit.arguments import check_whole
from celldit.errors import InputError
from celldit.pl.figure import Canvas, FigureOptions, figure, one_name
from celldit.pl.gene_sets.attention import short_name
from celldit.pl.style import INK, MEASURED, PREDICTED

COLUMNS = {"perturbation", "context", "program", "share", "effect_model", "network"}


@figure
def programs(
    canvas: Canvas,
    table: pd.DataFrame,
    perturbation: str | None = None,
    *,
    context: str | None = None,
    n_programs: int = 15,
    **options: Unpack[FigureOptions],
) -> Axes:
    """Draw which gene sets carry a predicted shift, and what of it the network added.

    Parameters
    ----------
    table
        What :func:`celldit.tl.programs` returns.
    perturbation
        Needed when the table holds several.
    context
        One context; None for the mean over all. Groups within it are averaged; pass a part of the
        table for one of them.
    n_programs
        Programs to draw, those with the largest shares.
    **options
        See :mod:`celldit.pl`.

    Raises
    ------
    InputError
        If the table was made by something else, or holds several perturbations.
    UnknownNameError
        If the perturbation or context is not in it.

    Examples
    --------
    >>> table = cd.tl.programs(adata, model, "STAT1")
    >>> ax = cd.pl.programs(table)
    """
    if not isinstance(table, pd.DataFrame) or not set(table.columns) >= COLUMNS:
        raise InputError("table must be what cd.tl.programs returns.")
    check_whole(n_programs, "n_programs")
    known = list(dict.fromkeys(table["perturbation"]))
    label = one_name(perturbation, known, "perturbation", "The table")
    own = table[table["perturbation"] == label]
    where = ""
    if context is not None:
        where = one_name(context, list(dict.fromkeys(own["context"])), "context", "The table")
        own = own[own["context"] == where]
    # Groups within contexts, by which the table may be made, are averaged, too.
    for what, n in (
        ("contexts", own["context"].nunique()),
        ("groups", int(own.groupby(["context", "program"]).size().max())),
    ):
        if n > 1:
            where += f"{', ' if where else ''}mean of {n} {what}"
    mean = own.groupby("program", sort=False)[["share", "effect_model", "network"]].mean()
    strongest = mean["share"].abs().sort_values(ascending=False, kind="stable").index[:n_programs]
    mean = mean.loc[strongest].sort_values("share", kind="stable")
    size = (5.6, 0.9 + 0.22 * len(mean))
    (ax,) = canvas.panels(1, size=size)
    at = np.arange(len(mean))
    names = ("effect model", "network")
    colors = canvas.colors(names, (MEASURED, PREDICTED))
    for name, offset, color in zip(names, (0.19, -0.19), colors, strict=True):
        column = name.replace(" ", "_")
        ax.barh(at + offset, 100 * mean[column], height=0.36, color=color, label=name)
    ax.plot(100 * mean["share"], at, "o", ms=3.2, color=INK, label="together")
    ax.axvline(0, color=INK, lw=0.6)
    ax.set_yticks(at, [short_name(str(name)) for name in mean.index], fontsize=7)
    ax.set_ylim(-0.6, len(mean) - 0.4)
    ax.set_xlabel("share of the predicted shift (%)")
    ax.set_title(f"{label}: programmes" + (f", {where}" if where else ""))
    ax.legend(loc="lower right", fontsize=7, frameon=False)
    return ax
