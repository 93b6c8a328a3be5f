"""The benchmark as a Markdown table, made from its JSON and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from celldit.arguments import check_plain
from celldit.errors import FileError
from celldit.evaluation.baselines import SIMPLE
from celldit.evaluation.benchmark.verdict import LABELS, judge
from celldit.evaluation.catalogue import METRICS
from celldit.evaluation.compare import CEILING

_METRICS = tuple(LABELS)
_OURS = "celldit"


def render_table(results: Mapping[str, Any] | str | Path) -> str:
    """Render the results of :func:`celldit.evaluation.benchmark.run` as Markdown.

    Parameters
    ----------
    results
        What ``benchmark.json`` holds, its text, or its path.

    Returns
    -------
    str
        Measures on all cells with a verdict, the same with equal numbers of cells, and seconds.
        Every value is a mean over problems of the group and seeds, with the standard deviation of
        the mean of each seed where there are several.

    Raises
    ------
    FileError
        If there is no such file, or it holds something else.
    """
    content = _load(results)
    cells = content["results"]
    if not cells:
        return "No results yet.\n"
    ran = [cell for cell in cells if "skipped" not in cell]
    blocks = [
        "Each cell: Pearson r of the mean shift / squared error over squared effect / energy "
        "distance, averaged over what was held out." + _partly(ran),
        _block(ran, "all_cells"),
        "The same beside the ceiling, one half of the measured cells as a prediction of the other "
        "half: every method is thinned to as many cells, and judged against the same other half.",
        _block(ran, "equal_cells"),
        "Seconds to train and predict:",
        _seconds(ran),
        *_skipped(cells),
        _made_with(content),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _load(results: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(results, Mapping):
        content: Any = results
    else:
        text = str(results)
        try:
            if not text.lstrip().startswith("{"):
                check_plain(Path(results))
                text = Path(results).read_text(encoding="utf-8")
            content = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise FileError(f"The results cannot be read ({error}).") from error
    if not isinstance(content, Mapping) or "results" not in content:
        raise FileError("These are not results of the benchmark: there is no entry 'results'.")
    return content


def _block(cells: list[dict[str, Any]], key: str) -> str:
    methods = list(dict.fromkeys(sorted((c["method"] for c in cells), key=_order)))
    # Beside methods that have twice its cells, the ceiling would look as if it could be passed.
    top = [CEILING] if key == "equal_cells" else []
    lines = [_row(["held out", *methods, *top, "celldit against the best baseline"])]
    lines.append(_row(["---"] * (len(methods) + len(top) + 2)))
    for (dataset, group), own in _groups(cells).items():
        found = {method: _average(own, method, key) for method in methods}
        values = {method: pair for method, pair in found.items() if pair is not None}
        n_problems = len({cell["problem"] for cell in own})
        shown = [
            _show(values.get(method)) + _answered(own, method, key, n_problems)
            for method in methods
        ]
        shown += [_show(_average(own, next(iter(values)), CEILING)) for _ in top]
        name = f"{dataset}: {group}" + (f" ({n_problems})" if n_problems > 1 else "")
        verdict = _verdict(own, key) if _OURS in values else "not run"
        lines.append(_row([name, *shown, verdict]))
    return "\n".join(lines)


def _partly(cells: list[dict[str, Any]]) -> str:
    """What a reader must know where a method did not answer everything."""
    every = [
        _answered(own, method, "all_cells", len({c["problem"] for c in own}))
        for own in _groups(cells).values()
        for method in dict.fromkeys(c["method"] for c in own)
    ]
    if not any(every):
        return ""
    return (
        " Where a method answered only some of the problems, its numbers are of those; methods are "
        "compared on what both answered."
    )


def _answered(cells: list[dict[str, Any]], method: str, key: str, n_problems: int) -> str:
    """How many of the problems a method answered, where not all."""
    n = len(_problems(cells, method, key))
    return f" ({n} of {n_problems})" if 0 < n < n_problems else ""


def _problems(cells: list[dict[str, Any]], method: str, key: str) -> set[str]:
    """What a method answered with a number."""
    own = [cell for cell in cells if cell["method"] == method]
    return {c["problem"] for c in own if any(np.isfinite(float(c[key][m])) for m in _METRICS)}


def _verdict(cells: list[dict[str, Any]], key: str) -> str:
    """Compare with each other method on the problems that both answered."""
    behind: dict[str, dict[str, float]] = {metric: {} for metric in _METRICS}
    for method in dict.fromkeys(cell["method"] for cell in cells if cell["method"] != _OURS):
        shared = _problems(cells, _OURS, key) & _problems(cells, method, key)
        both = [cell for cell in cells if cell["problem"] in shared]
        pairs = {name: _average(both, name, key) for name in (_OURS, method)}
        means = {name: pair[0] for name, pair in pairs.items() if pair is not None}
        for verdict in judge(means, _METRICS, _OURS) if shared else ():
            loss = METRICS[verdict.metric].loss
            behind[verdict.metric][method] = loss(verdict.value) - loss(verdict.best_value)
    won = [LABELS[metric] for metric, by in behind.items() if by and max(by.values()) < 0]
    lost = [
        f"{LABELS[metric]} ({max(by, key=lambda method: by[method])})"
        for metric, by in behind.items()
        if by and max(by.values()) >= 0
    ]
    said = [f"better: {', '.join(won)}"] if won else []
    said += [f"not better: {', '.join(lost)}"] if lost else []
    return "; ".join(said)


def _average(
    cells: list[dict[str, Any]], method: str, key: str
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Mean over problems and seeds, and the standard deviation of the means of the seeds."""
    own = [cell for cell in cells if cell["method"] == method]
    if not own:
        return None
    table = pd.DataFrame([{**cell[key], "seed": cell["seed"]} for cell in own])
    by_seed = table.astype(np.float64).groupby("seed").mean()
    spread = by_seed.std(ddof=1) if len(by_seed) > 1 else by_seed.mean() * np.nan
    return by_seed.mean().to_dict(), spread.to_dict()


def _show(pair: tuple[dict[str, float], dict[str, float]] | None) -> str:
    if pair is None:
        return "-"
    means, spreads = pair
    shown = []
    for metric in _METRICS:
        mean, spread = means[metric], spreads[metric]
        text = "-" if not np.isfinite(mean) else f"{mean:.3f}"
        # A method without chance in it has no spread to show.
        varies = np.isfinite(spread) and spread >= 0.0005
        shown.append(text + (f" ± {spread:.3f}" if varies else ""))
    return " / ".join(shown)


def _seconds(cells: list[dict[str, Any]]) -> str:
    methods = list(dict.fromkeys(sorted((c["method"] for c in cells), key=_order)))
    lines = [_row(["held out", *methods]), _row(["---"] * (len(methods) + 1))]
    for (dataset, group), own in _groups(cells).items():
        times = [[c["seconds"] for c in own if c["method"] == method] for method in methods]
        shown = [f"{np.mean(t):.1f}" if t else "-" for t in times]
        lines.append(_row([f"{dataset}: {group}", *shown]))
    return "\n".join(lines)


def _groups(cells: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in sorted(cells, key=lambda c: (c["dataset"], c["group"].startswith("each"))):
        groups.setdefault((cell["dataset"], cell["group"]), []).append(cell)
    return groups


def _skipped(cells: list[dict[str, Any]]) -> list[str]:
    reasons = {f"{c['dataset']}, {c['method']}: {c['skipped']}" for c in cells if "skipped" in c}
    return ["Not run:\n\n" + "\n".join(f"- {reason}" for reason in sorted(reasons))] * bool(reasons)


def _made_with(content: Mapping[str, Any]) -> str:
    dates, cells = content["dates"], content["results"]
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    seeds = sorted({cell["seed"] for cell in cells})
    versions = sorted({cell["code"] for cell in cells})
    mixed = (
        f" The results come from {len(versions)} states of the code." if len(versions) > 1 else ""
    )
    return (
        f"{when}; celldit {content['celldit']}; {'; '.join(content['machines'])}; "
        f"seeds {', '.join(map(str, seeds))}.{mixed}"
    )


def _order(method: str) -> tuple[bool, int, str]:
    known = [*SIMPLE, "feature ridge"]
    return method == _OURS, known.index(method) if method in known else len(known), method


def _row(entries: list[str]) -> str:
    return "| " + " | ".join(entry.replace("|", "/") for entry in entries) + " |"
