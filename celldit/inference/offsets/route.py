"""What is added to the log rates of cells on their way from one condition to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from torch import Tensor

from celldit.inference.batch import ConditionBatch
from celldit.inference.offsets.condition import condition_offsets
from celldit.inference.offsets.course import RouteOffset, course_offsets
from celldit.inference.solver import SolverConfig
from celldit.training.trained import Trained

Offset: TypeAlias = Callable[[np.ndarray], Tensor]
"""``offset(at_B)``: what is added to the log rates of the cells at positions `at_B`, (B, G)."""


def route_offsets(
    trained: Trained,
    source: ConditionBatch,
    target: ConditionBatch,
    config: SolverConfig,
    *,
    from_end: bool = False,
) -> RouteOffset | None:
    """The controls' course from the one time to the other, and what differs of the conditions.

    By rows of `source`, the conditions that cells have, and `target`, those that they are sent to;
    None for nothing. `from_end` is as in :class:`~celldit.inference.time.course_map.CourseMap`.
    """
    of_source, of_target = (condition_offsets(trained, one, config) for one in (source, target))
    if of_target is None and not trained.temporal_means.means:
        return None
    through_time = course_offsets(trained, source, target, from_end=from_end)

    def offset(source_B: np.ndarray, target_B: np.ndarray) -> Tensor:
        found_BG = through_time(source_B, target_B)
        if of_source is None or of_target is None:
            return found_BG
        return found_BG + of_target(target_B) - of_source(source_B)

    return offset


def by_position(
    offset: RouteOffset | None, source: ConditionBatch, target: ConditionBatch
) -> Offset | None:
    """The same by positions of a request, at which `source` and `target` have their rows."""
    return None if offset is None else lambda at_B: offset(source.row[at_B], target.row[at_B])
