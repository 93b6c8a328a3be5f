"""The page: numbers and pictures as HTML, every label escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

import numpy as np
import pandas as pd

from celldit.evaluation.catalogue import CEILING, METRICS
from celldit.evaluation.expression import condition_name, seen_note, some_of
from celldit.report.numbers import MAIN, Numbers
from celldit.report.pictures import Picture

#: The style sheet of all pages: light and dark, wide and narrow, nothing fetched.
CSS = files("celldit.report").joinpath("style.css").read_text(encoding="utf-8")


def render(
    numbers: Numbers,
    *,
    title: str,
    overview: Picture | None,
    conditions: Sequence[Picture],
    effects: dict[str, list[Picture]],
    calibration: Picture | None,
    made: str,
) -> str:
    """Write the page: numbers, pictures of all conditions and by perturbation, version and date."""
    blocks = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='verdict'>{escape(verdict(numbers))}</p>",
        f"<p>{escape(seen_note(numbers.in_training))}</p>" if numbers.in_training else "",
        figures([overview]) if overview is not None else "",
        "<h2>All conditions together</h2>",
        _details(numbers),
        _summary(numbers),
        "<h2>Condition by condition</h2>",
        figures(conditions),
        _conditions(numbers),
        *_effects(numbers, effects),
    ]
    if calibration is not None:
        blocks += [
            "<h2>Are the predicted intervals right?</h2>",
            "<p class='soft'>On the dashed line, intervals hold as many measurements as they "
            "promise; below it they are too narrow, above it wider than they need be.</p>",
            figures([calibration]),
        ]
    blocks += [_left_out(numbers), _definitions(numbers), _made_by(numbers, made)]
    body = "\n".join(block for block in blocks if block)
    page = Template(files("celldit.report").joinpath("page.html").read_text(encoding="utf-8"))
    return page.substitute(title=escape(title), css=CSS, body=body)


def verdict(numbers: Numbers) -> str:
    """What the report comes to, in one sentence."""
    own = numbers.closed[numbers.name]
    if not np.isfinite(own.share):
        return (
            "Nothing can be said of this prediction: on these data a replicate of the measurement "
            "is no better than no change."
        )
    said = f"{numbers.name} closes {_percent(own.share)} of the way from no change to a replicate"
    if own.share < 0:
        said = f"{numbers.name} is worse than no change by {_percent(-own.share)} of the way to a "
        said += "replicate"
    if np.isfinite(own.low):
        said += f" (90% of resampled perturbations: {_percent(own.low)} to {_percent(own.high)})"
    others = {m: p.share for m, p in numbers.closed.items() if m != numbers.name}
    others = {m: share for m, share in others.items() if np.isfinite(share)}
    if others:
        best = max(others, key=lambda m: others[m])
        than = "ahead of" if own.share > others[best] else "behind"
        said += f", {than} the best of the others, {best} ({_percent(others[best])})"
    if numbers.worse:
        said += f"; worse than no change for {some_of(numbers.worse, 3)}"
    return f"{said}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%".replace("-", "\u2212")


def _details(numbers: Numbers) -> str:
    effects, own = numbers.effects, numbers.table["method"] == numbers.name
    scored = numbers.table[own & (numbers.table["metric"] == numbers.summary.columns[0])]
    n, n_scored = len(scored), len(scored) - len(numbers.not_scored)
    n_there = int(effects["detectable"].sum())
    lines = [
        f"{n_scored} of {n} predicted conditions are scored. {n_there} of {len(effects)} have an "
        "effect that can be told from noise (energy distance to control cells, permutation test, "
        "false discovery rate below 5%).",
    ]
    metrics = numbers.closed[numbers.name].metrics
    if metrics:
        lines.append(
            f"The share of the way is a mean over {', '.join(map(measure_name, metrics))}, with "
            "equal numbers of cells and control cells of their own for either half; squared errors "
            "are free of sampling noise."
        )
    main = [v for v in numbers.verdicts if v.metric in MAIN] or numbers.verdicts
    for what, verdicts in (
        ("Better", [v for v in main if v.wins]),
        ("Not better", [v for v in main if not v.wins]),
    ):
        if verdicts:
            said = "; ".join(
                f"{measure_name(v.metric)} {number(v.value)} "
                f"({escape(v.best)} {number(v.best_value)})"
                for v in verdicts
            )
            lines.append(f"{what} than the best of the others in: {said}.")
    n_won = sum(v.wins for v in numbers.verdicts)
    if len(numbers.verdicts) > len(main):
        rest = [v for v in numbers.verdicts if not v.wins and v not in main]
        other = "; not in " + ", ".join(
            f"{measure_name(v.metric)} ({escape(v.best)})" for v in rest
        )
        lines.append(
            f"Of all {len(numbers.verdicts)} measures it is better in {n_won}{other * bool(rest)}."
        )
    behind = [f"{measure_name(m)} {number(x)}" for m, x in numbers.scores.items() if x < 0]
    if behind:
        lines.append(
            "With equal numbers of cells it is behind the best of the others, with a score below "
            f"0, in: {', '.join(behind)}."
        )
    return "\n".join(f"<p>{line}</p>" for line in lines)


def _summary(numbers: Numbers) -> str:
    metrics = list(numbers.summary.columns)

    def methods_beside(values: pd.DataFrame, scores: dict[str, float] | None = None) -> str:
        """A measure a row, so that all of them are seen without scrolling."""
        rows = []
        for metric in metrics:
            cells = [f"<span class='soft'>{ideal(metric)}</span>"]
            cells += [number(value) for value in values[metric]]
            if scores is not None:
                cells.append(number(scores.get(metric, float("nan"))))
            rows.append((measure_name(metric), cells))
        head = ["", "ideal", *map(str, values.index), *(["score"] if scores is not None else [])]
        return table(head, rows, own=head.index(numbers.name, 2))

    return (
        "<p class='soft'>Means over conditions, every cell used. An arrow up: higher is better; "
        "down: lower; across: nearer to the ideal.</p>"
        + methods_beside(numbers.summary)
        + "<p class='soft'>The same with equal numbers of cells, beside the ceiling: one half of "
        "the measured cells as a prediction of the other half. The score is 0 for the best of the "
        "other methods and 1 for the ceiling, and not clipped; it is empty where the ceiling is no "
        "better than the best method, so that nothing is left to gain.</p>"
        + methods_beside(numbers.equal, numbers.scores)
    )


def _conditions(numbers: Numbers) -> str:
    scores, effects = numbers.table, numbers.effects
    metrics = [m for m in MAIN if m in set(scores["metric"])]
    others = [m for m in dict.fromkeys(scores["method"]) if m not in (numbers.name, CEILING)]
    values = scores.set_index(["method", "perturbation", "context", "metric"])
    by_condition = effects.set_index(["perturbation", "context"])
    head = ["condition", "cells measured", "effect"]
    for metric in metrics:
        name = measure_name(metric)
        head += [name, f"{name}, best of the others", f"{name}, ceiling"]
    rows = []
    own = scores[(scores["method"] == numbers.name) & (scores["metric"] == "n_measured")]
    for row in own.itertuples():
        key = (row.perturbation, row.context)
        cells = [f"{row.value:.0f}", _q(by_condition, key)]
        for metric in metrics:
            cells.append(_with_ends(values.loc[(numbers.name, *key, metric)]))
            cells.append(_best(values["value"], others, key, metric))
            cells.append(number(values["value"].get((CEILING, *key, metric), float("nan"))))
        rows.append((condition_name(*key), cells))
    return (
        "<p class='soft'>Brackets: 90% interval over cells. Effect: whether there is one at "
        "all, by the test above. The ceiling has half the cells on either side. Scroll "
        "sideways for all columns.</p>" + table(head, rows, kind="tall")
    )


def _effects(numbers: Numbers, effects: dict[str, list[Picture]]) -> list[str]:
    if not effects:
        return []
    n_all = numbers.table[numbers.table["method"] == numbers.name]["perturbation"].nunique()
    which = (
        f"The {len(effects)} of {n_all} perturbations with the largest measured effect."
        if len(effects) < n_all
        else "Shift: mean log expression minus that of measured control cells."
    )
    blocks = ["<h2>Perturbation by perturbation</h2>", f"<p class='soft'>{which}</p>"]
    for label, pictures in effects.items():
        blocks += [f"<h3>{escape(label)}</h3>", figures(pictures)]
    return blocks


def _left_out(numbers: Numbers) -> str:
    items = [f"{escape(k)}: {escape(why)}" for k, why in numbers.not_scored.items()]
    blocks = []
    if items:
        blocks += ["<h2>Not scored</h2>", "<ul>", *(f"<li>{i}</li>" for i in items), "</ul>"]
    if numbers.not_predicted:
        shown = escape(some_of(numbers.not_predicted, 20))
        blocks.append(f"<p class='soft'>Measured but not predicted: {shown}.</p>")
    return "\n".join(blocks)


def _definitions(numbers: Numbers) -> str:
    rows = [
        (measure_name(m), [escape(METRICS[m].about), ideal(m)]) for m in numbers.summary.columns
    ]
    return "<h2>What the measures are</h2>" + table(
        ["", "what it measures", "ideal"], rows, kind="text"
    )


def _made_by(numbers: Numbers, made: str) -> str:
    said = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in numbers.made_by.items())
    block = f"<h2>What made the prediction</h2><dl>{said}</dl>" if said else ""
    return f"{block}\n<p class='soft'>{escape(made)}</p>"


def _with_ends(row: pd.Series) -> str:
    if not np.isfinite(row["low"]):
        return number(row["value"])
    return (
        f"{number(row['value'])} <span class='soft'>[{number(row['low'])}, "
        f"{number(row['high'])}]</span>"
    )


def _q(effects: pd.DataFrame, key: tuple[str, str]) -> str:
    if key not in effects.index or pd.isna(effects.loc[key, "q_value"]):
        return "-"
    row = effects.loc[key]
    return f"{'yes' if row['detectable'] else 'no'} (q {row['q_value']:.3f})"


def _best(values: pd.Series, others: Sequence[str], key: tuple[str, str], metric: str) -> str:
    found = {m: float(values.get((m, *key, metric), np.nan)) for m in others}
    found = {m: v for m, v in found.items() if np.isfinite(v)}
    if not found:
        return "-"
    best = min(found, key=lambda m: METRICS[metric].loss(found[m]))
    return f"{number(found[best])} <span class='soft'>{escape(best)}</span>"


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
