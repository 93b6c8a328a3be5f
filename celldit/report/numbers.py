"""Everything that a report says in numbers, computed once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_known
from celldit.errors import InputError
from celldit.evaluation.catalogue import CEILING, COUNTS, DE_COUNTS, METRICS, without_counts
from celldit.evaluation.ceiling import score, score_halves
from celldit.evaluation.compare import averages
from celldit.evaluation.dynamic_range import unchanged
from celldit.evaluation.expression import condition_name, seen_in_training
from celldit.evaluation.resampling import Progress, progress
from celldit.evaluation.task import Task
from celldit.evaluation.uncertainty import detectable_of, intervals_of

NO_CHANGE = "no change"
#: These get intervals and stand in the table of conditions.
MAIN = ("pearson", "nmse", "energy")
#: How these are called in sentences.
LABELS = {"pearson": "Pearson r", "nmse": "squared error", "energy": "energy distance"}


@dataclass(frozen=True)
class Verdict:
    """How a method stands in one measure.

    `value` is its own, `best` the best of the others, the ceiling left out, with `best_value`; it
    `wins` where it is better, not where it is equal.
    """

    metric: str
    value: float
    best: str
    best_value: float
    wins: bool

    def __str__(self) -> str:
        sign = "better than" if self.wins else "not better than"
        return (
            f"{LABELS.get(self.metric, self.metric)} {self.value:.3f}, {sign} the best baseline, "
            f"{self.best} ({self.best_value:.3f})"
        )


@dataclass(frozen=True, eq=False)
class Numbers:
    """The content of a report on the prediction `name`.

    `table` is what :func:`celldit.tl.report` returns. `summary` is its mean over conditions,
    methods in rows and metrics in columns, every cell used; `equal` the same with as many cells for
    every method as the ceiling has, which is the last row. From the latter are `scores`, ``(u - b)
    / (r - b)`` of the prediction, and `closed`, how much of the way from no change to a replicate
    each method closes over the main metrics. `effects` is what
    :func:`celldit.evaluation.detectable` returns; `worse` are detectable conditions for which the
    prediction is worse than no change, by squared error. `verdicts` put it against the best other
    method, metric by metric.
    """

    name: str
    table: pd.DataFrame
    summary: pd.DataFrame
    equal: pd.DataFrame
    scores: dict[str, float]
    effects: pd.DataFrame
    verdicts: list[Verdict]
    closed: dict[str, Progress]
    worse: list[str]
    not_scored: dict[str, str]
    not_predicted: list[str]
    in_training: list[str] = field(default_factory=list)
    made_by: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The same numbers for programs; missing ones are null."""
        content = {
            "name": self.name,
            "summary": _records(self.summary.reset_index()),
            "equal_cells": _records(self.equal.reset_index()),
            "scores": {m: s if np.isfinite(s) else None for m, s in self.scores.items()},
            "closed": {k: _records(pd.DataFrame([asdict(v)]))[0] for k, v in self.closed.items()},
            "worse_than_no_change": self.worse,
            "detectable": _records(self.effects),
            "not_scored": self.not_scored,
            "not_predicted": self.not_predicted,
            "in_training": self.in_training,
            "made_by": self.made_by,
            "table": _records(self.table),
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def measure(
    predicted: ad.AnnData,
    truth: ad.AnnData,
    control: ad.AnnData | None,
    *,
    name: str,
    baselines: Mapping[str, ad.AnnData],
    metrics: Sequence[str] | str | None,
    n_repeats: int,
    n_resamples: int,
    min_cells: int,
    seed: int,
) -> Numbers:
    """Score a prediction, baselines and the ceiling; see :func:`celldit.tl.report`."""
    names = without_counts(metrics, (*COUNTS, *DE_COUNTS))
    if {name, *baselines} & {NO_CHANGE, CEILING} or name in baselines:
        raise InputError(
            f"The prediction and the baselines need names of their own, other than {NO_CHANGE!r} "
            f"and {CEILING!r}, which the report adds; got {[name, *baselines]}."
        )
    whole = Task.prepare(truth, control, seed=seed)
    cells = {name: whole.read(predicted)}
    cells |= {key: whole.read(adata, f"baselines[{key!r}]") for key, adata in baselines.items()}
    requested = cells[name].conditions()
    measured = whole.truth.conditions()
    task = replace(whole, truth=whole.truth.only(requested))
    if task.truth.n_cells == 0:
        raise InputError(
            "Nothing that was predicted was measured in the same context, so there is nothing to "
            "report; compare obs of predicted and of truth."
        )
    others = {key: cells[key].only(requested) for key in baselines}
    cells = {name: cells[name], NO_CHANGE: unchanged(task.control, requested), **others}

    both = (*COUNTS, *names)
    tables = {key: task.score(one, both, min_cells=min_cells) for key, one in cells.items()}
    halves = score_halves(task, cells, names, n_repeats, min_cells, seed)
    summary, equal = averages(tables, names), averages(halves, names)
    summary.attrs, equal.attrs = {}, {}
    own = tables[name]
    if own[~own["metric"].isin(COUNTS)]["value"].isna().all():
        reasons = "; ".join(f"{k}: {why}" for k, why in own.attrs["not_scored"].items())
        raise InputError(f"No condition can be scored ({reasons}); lower min_cells, or add cells.")
    main = tuple(m for m in MAIN if m in names)
    wide = None
    if main and n_resamples:
        wide = intervals_of(
            whole, cells[name], main, n_resamples=n_resamples, min_cells=min_cells, seed=seed
        )
    effects = _effects(whole, requested, min_cells, seed)
    return Numbers(
        name=name,
        table=_tidy({**tables, CEILING: halves[CEILING]}, name, wide),
        summary=summary,
        equal=equal,
        scores=_scores(equal, name),
        effects=effects,
        verdicts=judge({str(m): row for m, row in summary.iterrows()}, names, name),
        closed=_progress(halves, names, seed),
        worse=_worse(own, effects),
        not_scored=dict(own.attrs["not_scored"]),
        not_predicted=[condition_name(*key) for key in measured if key not in requested],
        in_training=seen_in_training(predicted, whole.fields),
        made_by=_made_by(predicted),
    )


def judge(
    values: Mapping[str, Mapping[str, float]], metrics: tuple[str, ...], ours: str
) -> list[Verdict]:
    """Compare a method with the best of the others, measure by measure.

    `values` holds for each method the value of each measure; a row named ``"ceiling"`` is no
    method. There is a verdict for each measure with a value and something to compare it with;
    UnknownNameError if there is no such method.
    """
    check_known([ours], values, "method")
    verdicts = []
    for metric in metrics:
        losses = {
            name: METRICS[metric].loss(float(row[metric]))
            for name, row in values.items()
            if name not in (ours, CEILING) and np.isfinite(row[metric])
        }
        own = float(values[ours][metric])
        if not losses or not np.isfinite(own):
            continue
        best = min(losses, key=lambda name: losses[name])
        wins = METRICS[metric].loss(own) < losses[best]
        verdicts.append(Verdict(metric, own, best, float(values[best][metric]), wins))
    return verdicts


def _progress(
    halves: Mapping[str, pd.DataFrame], names: Sequence[str], seed: int
) -> dict[str, Progress]:
    main = [m for m in MAIN if m in names] or list(names)
    table = pd.concat([t.assign(method=method) for method, t in halves.items()])
    table.attrs = {}
    others = [method for method in halves if method not in (NO_CHANGE, CEILING)]
    return {method: progress(table, method, NO_CHANGE, main, seed=seed) for method in others}


def _worse(own: pd.DataFrame, effects: pd.DataFrame) -> list[str]:
    """Conditions with a squared error above that of no change, the worst first."""
    in_reach = effects[effects["detectable"]]
    keys = set(zip(in_reach["perturbation"], in_reach["context"], strict=True))
    rows = own[(own["metric"] == "nmse") & (own["value"] > 1)]
    rows = rows.sort_values("value", ascending=False)
    found = zip(map(str, rows["perturbation"]), map(str, rows["context"]), strict=True)
    return [condition_name(*key) for key in found if key in keys]


def _scores(equal: pd.DataFrame, name: str) -> dict[str, float]:
    found = {}
    for metric in equal.columns:
        others = equal[metric].drop([name, CEILING]).dropna()
        if others.empty:
            continue
        losses = others.map(METRICS[metric].loss)
        base = float(others[losses.idxmin()])
        found[metric] = score(equal.loc[name, metric], base, equal.loc[CEILING, metric], metric)
    return found


def _effects(
    task: Task, requested: Mapping[tuple[str, str], Any], min_cells: int, seed: int
) -> pd.DataFrame:
    table = detectable_of(task, min_cells=min_cells, seed=seed)
    keys = list(zip(table["perturbation"], table["context"], strict=True))
    return table[[key in requested for key in keys]].reset_index(drop=True)


def _tidy(tables: Mapping[str, pd.DataFrame], name: str, wide: pd.DataFrame | None) -> pd.DataFrame:
    parts = [t.assign(method=method) for method, t in tables.items()]
    table = pd.concat(parts, ignore_index=True)
    table.attrs = {}
    if wide is None:
        table = table.assign(low=np.nan, high=np.nan)
    else:
        keys = ["method", "perturbation", "context", "metric"]
        ends = wide.assign(method=name)[[*keys, "low", "high"]]
        table = table.merge(ends, on=keys, how="left")
    return table[["method", "perturbation", "context", "metric", "value", "low", "high"]]


def _made_by(predicted: ad.AnnData) -> dict[str, str]:
    said = predicted.uns.get("celldit", {})
    if not isinstance(said, Mapping):
        return {}
    flat = {k: v for k, v in said.items() if isinstance(v, (str, int, float, bool, np.generic))}
    return {str(k): str(v) for k, v in flat.items()}


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Rows, what is missing or not finite as null."""
    known = table.replace([np.inf, -np.inf], np.nan)
    return list(known.astype(object).where(known.notna(), None).to_dict("records"))
