"""Cells that are sent to another time, held to the mean of the controls there.

How cells differ between two times of training was measured, and what decoded rates make of it falls
short where counts are few: what an autoencoder makes of a cell holds that cell's own noise. So
rates are multiplied, gene by gene and alike in all cells, by what gives controls that were sent
from the one time to the other the change of mean log expression that is known
(:class:`~celldit.calibration.temporal_means.TemporalMeans`). As with the mean of a perturbation
(:mod:`celldit.calibration.means`) that belongs to the times and not to the cells that are passed,
so it is found from the same stand-ins (:mod:`celldit.calibration.reference_controls`). Perturbed
cells get what controls get.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.inference.batch import ConditionBatch
from celldit.inference.time.course_map import CourseMap
from celldit.training.trained import Trained

RouteOffset: TypeAlias = Callable[[np.ndarray, np.ndarray], Tensor]
"""``offset(source_B, target_B)``: what is added to log rates, (B, G), by rows of two batches."""


def course_offsets(
    trained: Trained, start: ConditionBatch, end: ConditionBatch, *, from_end: bool = False
) -> RouteOffset:
    """What is added to the log rates of cells on their way through time.

    Nothing is added where the mean at the start was not measured; `from_end` is as in
    :class:`~celldit.inference.time.course_map.CourseMap`.
    """

    @cache
    def between(first: StratumKey, last: StratumKey) -> Tensor:
        if not trained.temporal_means.knows(first, last):
            return torch.zeros(len(trained.genes))
        return _offset(trained, first, last, from_end=from_end)

    def of_rows(start_B: np.ndarray, end_B: np.ndarray) -> Tensor:
        firsts = [start.conditions[q].stratum for q in start_B]
        lasts = [end.conditions[q].stratum for q in end_B]
        return torch.stack([between(*pair) for pair in zip(firsts, lasts, strict=True)])

    return of_rows


def _offset(trained: Trained, start: StratumKey, end: StratumKey, *, from_end: bool) -> Tensor:
    """The offset of each gene from one time of a context to another, (G,)."""
    references = trained.reference_controls.of(start)
    keys = np.arange(len(references.z_NKD))
    first, last = (
        ConditionBatch.of_rows(trained, [Condition(context=context, time=time)], 0 * keys)
        for context, time in (start, end)
    )
    through_time = CourseMap(trained, first, last, from_end)
    change = references.change(through_time(references.z_NKD, 0 * keys, 0 * keys, keys))
    wanted_G = _change(trained, start, end, from_end=from_end)
    return torch.from_numpy(change.offset(wanted_G).astype(np.float32))


def _change(trained: Trained, start: StratumKey, end: StratumKey, *, from_end: bool) -> np.ndarray:
    """By how much mean log expression changes, (G,).

    New cells that stay behind, or ahead, by what cells do not go themselves leave that to those of
    the other end; together they have the mean of the course.
    """
    course, means = trained.time_course, trained.temporal_means
    change_G = means.mean(end, course.scale) - means.mean(start, course.scale)
    share = course.displacement if from_end else 1.0
    return np.asarray(share * change_G, dtype=np.float32)
