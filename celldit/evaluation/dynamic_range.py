"""Can a measure tell anything on these data?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_whole
from celldit.evaluation.catalogue import COUNTS, DE_COUNTS, METRICS, without_counts
from celldit.evaluation.expression import Expression
from celldit.evaluation.metrics import differential_expression
from celldit.evaluation.task import Task

#: A measure tells something where replicate and no change lie this many spreads apart.
ENOUGH = 2.0
FALSE_CALLS = "false_calls"


def dynamic_range(
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    metrics: Sequence[str] | str | None = None,
    n_repeats: int = 5,
    min_cells: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Score what is known to be good and what is known to be empty, before any prediction.

    One half of the measured cells predicts the other, and so do all control cells in its place, and
    the half with its labels exchanged within contexts.

    Parameters
    ----------
    truth, control, metrics, min_cells
        As in :func:`celldit.evaluation.evaluate`.
    n_repeats
        Random halvings.
    seed
        Of the halvings.

    Returns
    -------
    pandas.DataFrame
        A row for each metric: means over conditions of ``replicate``, ``no_change`` and
        ``mixed_up``; ``spread``, the standard deviation of the replicate over halvings; ``range``,
        by how many spreads (of at least a hundredth of the gap) the replicate is better than no
        change; ``tells``, whether these are two or more. The last row, ``false_calls``, is the mean
        number of genes that the test calls between two random parts of the control cells, of the
        sizes of a condition and its controls, where nothing differs.

    Raises
    ------
    InputError, UnknownNameError
        As :func:`celldit.evaluation.evaluate`, or if ``n_repeats`` is below 2.

    Examples
    --------
    >>> table = cd.tl.dynamic_range(adata, adata, metrics=["pearson"], n_repeats=2)
    >>> list(table.index), bool(table.loc["pearson", "tells"])
    (['pearson', 'false_calls'], True)
    """
    names = without_counts(metrics, (*COUNTS, *DE_COUNTS))
    # Of one there is no spread.
    check_whole(n_repeats, "n_repeats", 2)
    check_whole(min_cells, "min_cells", 0)
    task = Task.prepare(truth, control, seed=seed)
    runs: dict[str, list[pd.Series]] = {"replicate": [], "no_change": [], "mixed_up": []}
    false_calls = []
    for repeat in range(int(n_repeats)):
        half, first = task.halved(seed + repeat)
        sides = {
            "replicate": first,
            "no_change": unchanged(task.control, first.conditions()),
            "mixed_up": _mixed_up(first),
        }
        for name, cells in sides.items():
            drawn = None if name == "no_change" else dict.fromkeys(cells.conditions(), math.inf)
            table = half.score(cells, names, min_cells=min_cells, drawn_from=drawn)
            runs[name].append(table.groupby("metric")["value"].mean())
        false_calls.append(_false_calls(task, min_cells, seed + repeat))
    means = {name: pd.concat(found, axis=1).reindex(names) for name, found in runs.items()}
    table = pd.DataFrame({name: found.mean(axis=1) for name, found in means.items()})
    losses = table.apply(lambda column: [METRICS[m].loss(v) for m, v in column.items()])
    gap = losses["no_change"] - losses["replicate"]
    table["spread"] = means["replicate"].std(axis=1, ddof=1)
    table["range"] = gap / np.maximum(table["spread"], np.maximum(0.01 * gap.abs(), 1e-12))
    table["tells"] = table["range"] >= ENOUGH
    table.loc[FALSE_CALLS] = [np.nan, pd.Series(false_calls).mean(), np.nan, np.nan, np.nan, False]
    table.index.name = "metric"
    return table.astype({"tells": bool})


def unchanged(control: Expression, requested: Mapping[tuple[str, str], np.ndarray]) -> Expression:
    """The control cells, under the label of every condition that is asked for."""
    of_context = control.by_context()
    rows, labels = [], []
    for perturbation, context in requested:
        own = of_context.get(context, np.empty(0, dtype=np.int64))
        rows.append(own)
        labels += [perturbation] * len(own)
    copies = control.take(np.concatenate(rows))
    return replace(copies, perturbations=np.array(labels, dtype=object))


def _mixed_up(cells: Expression) -> Expression:
    """Each perturbation under the label of the next in its context; none where it is alone."""
    labels, alone = cells.perturbations.copy(), np.zeros(cells.n_cells, dtype=bool)
    for context in dict.fromkeys(cells.contexts):
        of_context = np.flatnonzero(cells.contexts == context)
        names = sorted(set(cells.perturbations[of_context]))
        turned = dict(zip(names, np.roll(names, 1), strict=True))
        labels[of_context] = [turned[label] for label in cells.perturbations[of_context]]
        alone[of_context] = len(names) < 2
    return replace(cells, perturbations=labels).take(~alone)


def _false_calls(task: Task, min_cells: int, seed: int) -> float:
    """Genes called between two parts of the control cells, averaged over contexts."""
    rng = np.random.default_rng(seed)
    sizes: dict[str, list[int]] = {}
    for (_, context), rows in task.truth.conditions().items():
        sizes.setdefault(context, []).append(len(rows))
    found = []
    for context, rows in task.control.by_context().items():
        n = min(int(np.median(sizes.get(context, [0]))), len(rows) // 2)
        if n < min_cells:
            continue
        log_KG = task.control.dense(rng.permutation(rows))
        found.append(differential_expression(log_KG[:n], log_KG[n:]).significant().size)
    return float(np.mean(found)) if found else float("nan")
