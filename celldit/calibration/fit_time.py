"""Choose pace and displacement of a course by leaving out times of training.

Every time that has another before and after it, in a context with enough cells, is predicted from
the cells of these two: matched by exact optimal transport, each moves a share of the displacement
of the cells about it (a mean over neighbours, since the displacement of one cell is mostly noise),
the rest of the way being left to the mixture. The pace is the one whose means on the line between
the neighbours are nearest to those measured; the share the one whose cells scatter about their mean
as those measured do, by energy distance. The default stays unless another pace lowers the sum of
squared errors by a twentieth, or another share the energy by half a hundredth of that between the
neighbours.

Without a time to leave out, cells go the whole way themselves, at a steady pace. But where the
first time of training is 0 and cells measured then have not set out yet, they answer to something
that was done then: pace :data:`~celldit.conditions.time_scale.RESPONSE_RATE`. They have not set out
if along the way to the next time they spread by less than a quarter of its length; cells of a
process that goes on of itself, like differentiation, are out of step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import ot
import torch
from sklearn.neighbors import NearestNeighbors

from celldit.calibration.time_course import LeftOut, TimeCourse
from celldit.conditions.time_scale import RESPONSE_RATE, TimeScale
from celldit.flow.losses import energy_distance_loss

MIN_CELLS, MAX_CELLS = 20, 500
RATES = (0.0, 1.5, RESPONSE_RATE)
SHARES = (0.0, 0.5, 1.0)
GAIN, SHAPE_GAIN = 0.95, 0.005
USUAL_SHARE = 1.0
N_NEIGHBORS = 15
SET_OUT = 0.25

Snapshots = Mapping[float, np.ndarray]
"""Cells of one context by their time, (n, F) each, in units of log expression."""


def choose_course(contexts: Mapping[str, Snapshots], span: tuple[float, float]) -> TimeCourse:
    """Pace and displacement.

    Parameters
    ----------
    contexts
        Cells of each context by time; times of fewer than `MIN_CELLS` cells are left aside.
    span
        First and last time of training.
    """
    large = {
        context: {time: z for time, z in own.items() if len(z) >= MIN_CELLS}
        for context, own in contexts.items()
    }
    default = TimeScale(*span, RESPONSE_RATE if _answers(large, span) else 0.0)
    trials = [
        _Trial.of(context, own, times[i - 1 : i + 2])
        for context, own in sorted(large.items())
        for times in [sorted(own)]
        for i in range(1, len(times) - 1)
    ]
    if not trials:
        return TimeCourse(default, USUAL_SHARE)
    scales = {rate: replace(default, rate=rate) for rate in RATES}
    off = {rate: sum(trial.mean_error(scales[rate]) for trial in trials) for rate in RATES}
    rate = _better(off, default.rate, GAIN * off[default.rate])
    scale = scales[rate]
    shape = {s: sum(trial.shape_error(scale, s) for trial in trials) / len(trials) for s in SHARES}
    share = _better(shape, USUAL_SHARE, shape[USUAL_SHARE] - SHAPE_GAIN)
    return TimeCourse(scale, share, left_out=tuple(trial.scores(scale, share) for trial in trials))


def _better(error: Mapping[float, float], usual: float, least: float) -> float:
    """The candidate of the smallest error, if that is below what is asked of others."""
    chosen = min(error, key=lambda one: error[one])
    return chosen if error[chosen] < least else usual


@dataclass(frozen=True, eq=False)
class _Trial:
    """One time left out: cells of its neighbours, which way they go, and its own."""

    context: str
    times: tuple[float, float, float]
    sides: tuple[np.ndarray, np.ndarray]
    displacements: tuple[np.ndarray, np.ndarray]
    truth: np.ndarray
    unit: float

    @classmethod
    def of(cls, context: str, cells: Snapshots, times: list[float]) -> _Trial:
        low, when, high = times
        early, late, truth = (_some(cells[t]) for t in (low, high, when))
        unit = _energy(early, late)
        displacements = ways_between(early, late)
        return cls(context, (low, when, high), (early, late), displacements, truth, max(unit, 1e-9))

    def mean_error(self, scale: TimeScale) -> float:
        """Squared error of the mean on the line, over the squared length of the line."""
        low, when, high = self.times
        share = scale.share(low, high, when)
        first_F, last_F = (z.mean(0) for z in self.sides)
        away_F = (1 - share) * first_F + share * last_F - self.truth.mean(0)
        return float(away_F @ away_F) / max(float(np.square(last_F - first_F).sum()), 1e-12)

    def shape_error(self, scale: TimeScale, displacement: float) -> float:
        """Energy distance about the mean, over that between the neighbours."""
        cells = self._predicted(scale, displacement)
        return _energy(cells - cells.mean(0), self.truth - self.truth.mean(0)) / self.unit

    def error(self, scale: TimeScale, displacement: float) -> float:
        """Energy distance, over that between the neighbours."""
        return _energy(self._predicted(scale, displacement), self.truth) / self.unit

    def scores(self, scale: TimeScale, displacement: float) -> LeftOut:
        """What is told of the trial."""
        low, when, high = self.times
        nearer = self.sides[0] if scale.share(low, high, when) < 0.5 else self.sides[1]
        return LeftOut(
            self.context,
            when,
            self.error(scale, displacement),
            self.error(replace(scale, rate=0.0), 0.0),
            _energy(nearer, self.truth) / self.unit,
        )

    def _predicted(self, scale: TimeScale, displacement: float) -> np.ndarray:
        low, when, high = self.times
        share = scale.share(low, high, when)
        early, late = (
            z + displacement * gone * displacement_ND
            for z, gone, displacement_ND in zip(
                self.sides, (share, 1 - share), self.displacements, strict=True
            )
        )
        return _mixed(early, late, share)


def ways_between(early: np.ndarray, late: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From each cell of one time to the other, (n, F), and back, (m, F).

    The means over neighbours of the exact transport plan's displacements.
    """
    n, m = len(early), len(late)
    plan_NM = ot.emd(np.full(n, 1 / n), np.full(m, 1 / m), ot.dist(early, late))
    found = []
    for source, target, plan in ((early, late, plan_NM), (late, early, plan_NM.T)):
        displacement_ND = plan @ target / plan.sum(1, keepdims=True) - source
        k = min(N_NEIGHBORS, len(source))
        near = NearestNeighbors(n_neighbors=k).fit(source).kneighbors(return_distance=True)[1]
        found.append((displacement_ND + displacement_ND[near].sum(1)) / (k + 1))
    return found[0], found[1]


def _mixed(early: np.ndarray, late: np.ndarray, share: float) -> np.ndarray:
    """Cells of both in the proportions of a share, the same whichever way they were moved."""
    rng = np.random.default_rng(0)
    n = max(len(early), len(late))
    n_late = round(share * n)
    return np.concatenate(
        [
            early[np.resize(rng.permutation(len(early)), n - n_late)],
            late[np.resize(rng.permutation(len(late)), n_late)],
        ]
    )


def _answers(contexts: Mapping[str, Snapshots], span: tuple[float, float]) -> bool:
    """Whether cells of time 0, the first, have not set out on the way to the next time."""
    if span[0] != 0:
        return False
    spreads = []
    for own in contexts.values():
        for low, high in list(pairwise(sorted(own)))[:1]:
            if low == 0:
                spreads.append(_spread(own[low], own[high]))
    return bool(spreads) and float(np.median(spreads)) < SET_OUT


def _spread(early: np.ndarray, late: np.ndarray) -> float:
    """Standard deviation of cells along the way to a later time, over its length.

    The way is taken from every other cell and the spread from the rest, since noise of the way
    would spread the cells that it was measured from.
    """
    way_F = late[::2].mean(0) - early[::2].mean(0)
    along = early[1::2] @ way_F
    length = float(way_F @ (late[1::2].mean(0) - early[1::2].mean(0)))
    return float(along.std(ddof=1) / max(length, 1e-12))


def _some(cells: np.ndarray) -> np.ndarray:
    order = np.random.default_rng(0).permutation(len(cells))
    return cells[np.sort(order[:MAX_CELLS])]


def _energy(x: np.ndarray, y: np.ndarray) -> float:
    return float(energy_distance_loss(torch.from_numpy(x), torch.from_numpy(y)))
