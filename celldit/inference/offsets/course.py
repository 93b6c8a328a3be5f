"""Cells that are sent to another time, held to the mean of the controls there.

How cells differ between two times of training was measured, and what decoded rates make of it falls
short where counts are few: what an autoencoder makes of a cell holds that cell's own noise. So
rates are multiplied, gene by gene and alike in all cells, by what gives controls that were sent
from the one time to the other the change of mean log expression that is known
(:class:`~celldit.calibration.temporal_means.TemporalMeans`). As with the mean of a perturbation
(:mod:`celldit.calibration.means`) that belongs to the times and not to the cells that are passed,
so it is found from new cells of the model's own, always the same ones, with their counts. Perturbed
cells get what controls get.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.means import LEAST_ANSWER, MOST_OFFSET, ROUNDS
from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.inference.batch import ConditionBatch
from celldit.inference.new_cells import new_cells
from celldit.inference.time.course_map import CourseMap
from celldit.latent.expected_log import expected_log
from celldit.training.trained import Trained

N_CELLS = 512
STEP = 0.1

RouteOffset: TypeAlias = Callable[[np.ndarray, np.ndarray], Tensor]
"""``offset(source_B, target_B)``: what is added to log rates, (B, G), by rows of two batches."""


def course_offsets(
    trained: Trained, start: ConditionBatch, end: ConditionBatch, *, from_end: bool = False
) -> RouteOffset:
    """What is added to the log rates of cells on their way through time.

    Nothing is added where the mean at the start was not measured, or the model cannot draw new
    cells; `from_end` is as in :class:`~celldit.inference.time.course_map.CourseMap`.
    """

    @cache
    def between(first: StratumKey, last: StratumKey) -> Tensor:
        known = trained.temporal_means.knows(first, last) and trained.new_cell_model.learned
        if not known:
            return torch.zeros(len(trained.genes))
        return _offset(trained, first, last, from_end=from_end)

    def of_rows(start_B: np.ndarray, end_B: np.ndarray) -> Tensor:
        firsts = [start.conditions[q].stratum for q in start_B]
        lasts = [end.conditions[q].stratum for q in end_B]
        return torch.stack([between(*pair) for pair in zip(firsts, lasts, strict=True)])

    return of_rows


@torch.no_grad()
def _offset(trained: Trained, start: StratumKey, end: StratumKey, *, from_end: bool) -> Tensor:
    """The offset of each gene from one time of a context to another, (G,)."""
    autoencoder = trained.autoencoder
    own, goal = (Condition(context=context, time=time) for context, time in (start, end))
    cells = new_cells(trained, own, N_CELLS, seed=0)
    z_NKD, keys = autoencoder.encode(cells), np.arange(N_CELLS)
    first, last = (ConditionBatch.of_rows(trained, [c], 0 * keys) for c in (own, goal))
    moved_NKD = CourseMap(trained, first, last, from_end)(z_NKD, 0 * keys, 0 * keys, keys)
    size_N = torch.from_numpy(cells.size_factors)
    counts_NG = torch.from_numpy(cells.counts.toarray())
    before = autoencoder.decode(z_NKD, size_N)
    after_NG = autoencoder.decode(moved_NKD, size_N).mean_BG

    def level(new_NG: Tensor) -> Tensor:
        logs = expected_log(counts_NG, before.mean_BG, new_NG, before.theta_G, size_N)
        return logs.mean(0)

    change_G = _change(trained, start, end, from_end=from_end)
    wanted_G = level(before.mean_BG) + torch.from_numpy(change_G)
    return _solved(lambda offset_G: level(after_NG * offset_G.exp()), wanted_G)


def _change(trained: Trained, start: StratumKey, end: StratumKey, *, from_end: bool) -> np.ndarray:
    """By how much mean log expression changes, (G,).

    New cells that stay behind, or ahead, by what cells do not go themselves leave that to those of
    the other end; together they have the mean of the course.
    """
    course, means = trained.time_course, trained.temporal_means
    change_G = means.mean(end, course.scale) - means.mean(start, course.scale)
    if not from_end or course.displacement == 1:
        return np.asarray(change_G, dtype=np.float32)
    line_G: np.ndarray = means.line(end, course.scale) - means.mean(start, course.scale)
    away_G = course.displacement * line_G + (change_G - line_G)
    return np.asarray(away_G, dtype=np.float32)


def _solved(level: Callable[[Tensor], Tensor], wanted_G: Tensor) -> Tensor:
    """The offset at which each gene has the level wanted; Gauss-Newton, with a tie to zero."""
    offset_G = torch.zeros_like(wanted_G)
    for _ in range(ROUNDS):
        now_G = level(offset_G)
        slope_G = (level(offset_G + STEP) - now_G) / STEP
        missing_G = wanted_G - now_G + slope_G * offset_G
        full_G = slope_G * missing_G / (slope_G**2 + LEAST_ANSWER**2)
        offset_G = offset_G + (full_G - offset_G).clamp(-1, 1)
    return offset_G.clamp(-MOST_OFFSET, MOST_OFFSET)
