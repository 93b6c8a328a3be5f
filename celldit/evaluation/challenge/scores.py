"""How far a prediction goes from the mean response (0) to a replicate (1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import pandas as pd

from celldit.errors import UnknownNameError
from celldit.evaluation.challenge.anchors import mean_response, replicate
from celldit.evaluation.challenge.groups import CountGroups
from celldit.evaluation.challenge.measures import (
    MEASURES,
    Reference,
    Side,
    aggregate,
    measure_panel,
)
from celldit.evaluation.challenge.package import check_installed, package_values
from celldit.evaluation.challenge.panel import Panel

Engine = Literal["cell-eval2", "celldit"]

COMPOSITE = "composite"

#: Measures that are better lower.
ERRORS = ("squared_error", "fold_change_error")
#: Ends beyond which a score is not counted, as the challenge clips them.
CLIPPED = {"squared_error": (0.0, 1.0), "fold_change_error": (-6.0, np.inf)}


def check_engine(engine: str) -> None:
    """Refuse, before any work, an engine that is not known or not installed."""
    if engine not in get_args(Engine):
        raise UnknownNameError.among("engine", engine, get_args(Engine))
    if engine == "cell-eval2":
        check_installed()


def score_panels(
    panels: Mapping[str, Panel], *, engine: Engine = "cell-eval2", seed: int = 0
) -> pd.DataFrame:
    """Score the prediction of every context.

    Returns
    -------
    pandas.DataFrame
        ``context``, ``measure``, ``value``, ``mean_response``, ``replicate``, ``score``; a row for
        each context and measure, and one for the composite of each context, the mean of its scores,
        which is NaN where one of them is.
    """
    tables = []
    for context, panel in panels.items():
        table = package_values(panel, seed) if engine == "cell-eval2" else own_values(panel, seed)
        values = zip(MEASURES, table.to_numpy(), strict=True)
        scores = [float(place(value, base, top, m)) for m, (value, base, top) in values]
        table = table.assign(score=scores)
        # One missing score is not made up for by the others.
        table.loc[COMPOSITE] = [np.nan, np.nan, np.nan, float(np.mean(scores))]
        tables.append(table.rename_axis("measure").reset_index().assign(context=context))
    columns = ["context", "measure", "value", "mean_response", "replicate", "score"]
    return pd.concat(tables, ignore_index=True)[columns]


def own_values(panel: Panel, seed: int = 0) -> pd.DataFrame:
    """Measure a panel, its mean response and its replicate; see :func:`package_values`."""
    control = Reference.of(panel.controls)
    real = Side.of(panel.real, control)

    def against_real(groups: CountGroups) -> dict[str, float]:
        return aggregate(measure_panel(Side.of(groups, control), real, panel.targets))

    halvings = [aggregate(values) for values in replicate(panel, real, seed)]
    base = mean_response(panel, seed)
    return pd.DataFrame(
        {
            "value": against_real(panel.predicted),
            "mean_response": against_real(base),
            "replicate": {m: float(np.mean([half[m] for half in halvings])) for m in MEASURES},
        }
    ).rename_axis("measure")


def place(
    value_R: np.ndarray, base_R: np.ndarray, replicate_R: np.ndarray, measure: str
) -> np.ndarray:
    """Place R values between a baseline (0) and a replicate (1), clipped as the challenge clips.

    NaN when the replicate is no better than the baseline, or one of the two is missing: then there
    is nothing that could be gained. A value that is missing scores as the worst there is.
    """
    gap_R = replicate_R - base_R
    possible_R = (-gap_R if measure in ERRORS else gap_R) > 0
    low, high = CLIPPED.get(measure, (-np.inf, np.inf))
    # The worst of a bounded measure is 0; an unbounded one has a worst score.
    worst_R = np.full_like(gap_R, low) if np.isfinite(low) else -base_R / _safe(gap_R)
    score_R = np.clip((value_R - base_R) / _safe(gap_R), low, high)
    return np.where(possible_R, np.where(np.isfinite(value_R), score_R, worst_R), np.nan)


def _safe(gap_R: np.ndarray) -> np.ndarray:
    return np.where(gap_R == 0, np.nan, gap_R)
