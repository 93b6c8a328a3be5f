"""Pieces of the page: tables, pictures, numbers and names as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from celldit.evaluation.catalogue import METRICS
from celldit.report.pictures import Picture

__all__ = ["figures", "ideal", "measure_name", "number", "table"]


def table(
    head: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    *,
    own: int | None = None,
    kind: str = "",
) -> str:
    """A table that scrolls by itself when the page is narrower.

    `rows` are names, text, with their cells, HTML; `own` is the position of a column to mark;
    `kind` "tall" scrolls up and down, too, and "text" holds sentences, not numbers.
    """
    marks = [" class='own'" if i == own else "" for i in range(len(head))]
    first, *others = (
        f"<th scope='col'{mark} title='{escape(name)}'>{escape(name)}</th>"
        for name, mark in zip(head, marks, strict=True)
    )
    body = []
    for name, cells in rows:
        row = "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(cells, marks[1:], strict=True))
        body.append(f"<tr><th scope='row' title='{escape(name)}'>{escape(name)}</th>{row}</tr>")
    return (
        f"<div class='scroll {kind}' tabindex='0'><table class='{kind}'>"
        f"<thead><tr>{first}{''.join(others)}</tr></thead><tbody>{''.join(body)}</tbody>"
        "</table></div>"
    )


def figures(pictures: Sequence[Picture]) -> str:
    """Pictures side by side, as many as fit."""
    shown = (
        f"<figure role='img' aria-label='{escape(p.about)}'>{p.svg}</figure>" for p in pictures
    )
    return f"<div class='pictures'>{''.join(shown)}</div>"


def measure_name(metric: str) -> str:
    """Name of a measure for people."""
    return metric.replace("_", " ")


def ideal(metric: str) -> str:
    """Value of a perfect prediction, and whether it is reached from below, above or both sides."""
    known = METRICS[metric]
    arrow = {"higher": "↑", "lower": "↓", "nearer": "→"}[known.better]
    return f"{arrow} {known.ideal:g}"


def number(value: float) -> str:
    """Three digits after the point; a dash for what is not there."""
    if not np.isfinite(value):
        return "-"
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text.replace("-", "\u2212")
