"""Whether a method beats every other, said in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from celldit.errors import UnknownNameError
from celldit.evaluation.catalogue import CEILING
from celldit.evaluation.catalogue import METRICS as KNOWN

#: How the measures are called in tables.
LABELS = {"pearson": "Pearson r", "nmse": "squared error", "energy": "energy distance"}


@dataclass(frozen=True)
class Verdict:
    """How a method stands in one measure.

    Parameters
    ----------
    metric
        The measure.
    value
        Of the method.
    best, best_value
        The best of the others, the ceiling left out, and its value.
    wins
        Whether the method is better; equal is not.
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


def judge(
    values: Mapping[str, Mapping[str, float]], metrics: tuple[str, ...], ours: str
) -> list[Verdict]:
    """Compare a method with the best of the others, measure by measure.

    `values` holds for each method the value of each measure; a row named ``"ceiling"`` is no
    method. There is a verdict for each measure with a value and something to compare it with.

    Raises
    ------
    UnknownNameError
        If there is no such method.
    """
    if ours not in values:
        raise UnknownNameError.among("method", ours, values)
    verdicts = []
    for metric in metrics:
        losses = {
            name: KNOWN[metric].loss(float(row[metric]))
            for name, row in values.items()
            if name not in (ours, CEILING) and np.isfinite(row[metric])
        }
        own = float(values[ours][metric])
        if not losses or not np.isfinite(own):
            continue
        best = min(losses, key=lambda name: losses[name])
        wins = KNOWN[metric].loss(own) < losses[best]
        verdicts.append(Verdict(metric, own, best, float(values[best][metric]), wins))
    return verdicts
