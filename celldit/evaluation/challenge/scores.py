"""How far a prediction goes from the mean response (0) to a replicate (1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

__all__ = [
    "COMPOSITE",
    "Engine",
    "average",
    "check_engine",
    "own_values",
    "place",
    "place_all",
    "score_panels",
]

Engine = Literal["cell-eval2", "celldit"]

COMPOSITE = "composite"

#: Measures that are better lower.
ERRORS = ("squared_error", "fold_change_error")
#: Ends beyond which a score is not counted, as the challenge clips them.
CLIPPED = {"squared_error": (0.0, 1.0), "fold_change_error": (-6.0, np.inf)}


def check_engine(engine: str) -> None:
    """Refuse an engine that is not known or not installed, before any work.

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    InputError
        If its package is missing.
    """
    if engine not in get_args(Engine):
        raise UnknownNameError.among("engine", engine, get_args(Engine))
    if engine == "cell-eval2":
        check_installed()


def score_panels(
    panels: Mapping[str, Panel], *, engine: Engine = "cell-eval2", seed: int = 0
) -> pd.DataFrame:
    """Score the prediction of every context.

    Parameters
    ----------
    panels
        By context.
    engine
        Who computes.
    seed
        Of everything random.

    Returns
    -------
    pandas.DataFrame
        ``context``, ``measure``, ``value``, ``mean_response``, ``replicate``, ``score``; a row for
        each context and measure, and one for the composite of each context, the mean of its scores.
        The composite is NaN where one of them is.
    """
    tables = []
    for context, panel in panels.items():
        table = package_values(panel, seed) if engine == "cell-eval2" else own_values(panel, seed)
        scores = [
            place(float(row["value"]), float(row["mean_response"]), float(row["replicate"]), str(m))
            for m, row in table.iterrows()
        ]
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

    halvings = replicate(
        panel.real,
        panel.controls,
        panel.targets,
        real,
        control_label=panel.control_label,
        seed=seed,
    )
    base = mean_response(panel.real, panel.controls, panel.targets, seed=seed)
    return pd.DataFrame(
        {
            "value": against_real(panel.predicted),
            "mean_response": against_real(base),
            "replicate": average(halvings),
        }
    ).rename_axis("measure")


def average(halvings: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Each measure, averaged over halvings."""
    found = [aggregate(values) for values in halvings]
    return {name: float(np.mean([one[name] for one in found])) for name in MEASURES}


def place(value: float, base: float, replicate: float, measure: str) -> float:
    """Place a value between a baseline (0) and a replicate (1), clipped as the challenge clips.

    Parameters
    ----------
    value, base, replicate
        Of the same measure.
    measure
        Which of :data:`MEASURES`.

    Returns
    -------
    float
        NaN when the replicate is no better than the baseline, or one of the two is missing: then
        there is nothing that could be gained. A value that is missing scores as the worst there is.
    """
    value_1, base_1, replicate_1 = (np.array([float(x)]) for x in (value, base, replicate))
    return float(place_all(value_1, base_1, replicate_1, measure)[0])


def place_all(
    value_R: np.ndarray, base_R: np.ndarray, replicate_R: np.ndarray, measure: str
) -> np.ndarray:
    """:func:`place` of R values at once."""
    gap_R = replicate_R - base_R
    possible_R = (-gap_R if measure in ERRORS else gap_R) > 0
    low, high = CLIPPED.get(measure, (-np.inf, np.inf))
    # The worst of a bounded measure is 0; an unbounded one has a worst score.
    worst_R = np.full_like(gap_R, low) if np.isfinite(low) else -base_R / _safe(gap_R)
    score_R = np.clip((value_R - base_R) / _safe(gap_R), low, high)
    return np.where(possible_R, np.where(np.isfinite(value_R), score_R, worst_R), np.nan)


def _safe(gap_R: np.ndarray) -> np.ndarray:
    return np.where(gap_R == 0, np.nan, gap_R)
