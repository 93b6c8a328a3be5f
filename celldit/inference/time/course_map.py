"""The latent of a cell at another time of its own condition.

A cell is taken along the mean course of the controls of its context, and its deviation from that
along the network's velocity (:mod:`celldit.flow.time`); what was done to it is taken away before
and given back after, as it is at the other time. At a time between two of training a population is,
as far as cells do not change themselves, a mixture: a cell then is where one of the two times takes
it, the later one with the probability of the share of the way that is done, and has gone from there
the share of the way that cells go themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.embedding import context_numbers
from celldit.conditions.strata import StratumKey, mean_controls
from celldit.conditions.time_scale import bracket, times_by_context
from celldit.inference.batch import ConditionBatch
from celldit.inference.noise import uniforms
from celldit.random import TIME_STREAM
from celldit.training.trained import Trained


@dataclass(frozen=True, eq=False)
class CourseMap:
    """Cells on their way from one time to another, whatever else was done to them.

    The conditions at start and end differ in time alone. Cells `from_end` start at a time of
    training next to that asked for and stand for it in the mixture, as new cells do; otherwise they
    are drawn to one of the two, by the seed.
    """

    trained: Trained
    start: ConditionBatch
    end: ConditionBatch
    from_end: bool = False
    seed: int = 0

    def __call__(
        self, z_BKD: Tensor, start_B: np.ndarray, end_B: np.ndarray, keys_B: np.ndarray
    ) -> Tensor:
        """Latents of B cells at the other time; equal times give them back to the last bit.

        `start_B` and `end_B` are rows of their conditions, `keys_B` the keys of their random
        numbers.
        """
        pairs = [
            (self.start.conditions[p].stratum, self.end.conditions[q].stratum)
            for p, q in zip(start_B, end_B, strict=True)
        ]
        moves_B = torch.tensor([a != b for a, b in pairs])
        if not moves_B.any():
            return z_BKD
        # All of them are computed: bytes of a product may depend on the number of its rows.
        before_BKD = self.start.embedding.effects_QKD[torch.from_numpy(start_B)]
        after_BKD = self.end.embedding.effects_QKD[torch.from_numpy(end_B)]
        contexts_B = self._numbers[torch.from_numpy(start_B)]
        z_BF = (z_BKD - before_BKD).flatten(1)
        displacement = self.trained.time_course.displacement
        if displacement < 1 and not self.from_end:
            uniform_B = uniforms(keys_B, self.seed, TIME_STREAM)
            nodes = [self._node(end, u) for (_, end), u in zip(pairs, uniform_B, strict=True)]
            z_BF = self._moved(
                z_BF, [(a, n) for (a, _), n in zip(pairs, nodes, strict=True)], contexts_B
            )
            pairs = [(n, b) for n, (_, b) in zip(nodes, pairs, strict=True)]
        moved_BF = torch.lerp(z_BF, self._moved(z_BF, pairs, contexts_B), displacement)
        moved_BKD = moved_BF.view(z_BKD.shape) + after_BKD
        return torch.where(moves_B[:, None, None], moved_BKD, z_BKD)

    @cached_property
    def _numbers(self) -> Tensor:
        return context_numbers(self.trained.population, self.start.conditions)

    @cached_property
    def _times(self) -> Mapping[str, list[float]]:
        return times_by_context(self.trained.population.references)

    def _node(self, end: StratumKey, uniform: float) -> StratumKey:
        """The time of training that a cell is drawn to on its way."""
        times = self._times.get(end[0], ())
        low, high, share = bracket(times, end[1], self.trained.time_course.scale)
        return end[0], high if uniform < share else low

    def _moved(
        self, z_BF: Tensor, pairs: list[tuple[StratumKey, StratumKey]], contexts_B: Tensor
    ) -> Tensor:
        """Along the mean course and the network's velocity, (B, F)."""
        start_BF = torch.stack([self._means(start, start) for start, _ in pairs])
        end_BF = torch.stack([self._means(start, end) for start, end in pairs])
        away_BF, course = z_BF - start_BF, self.trained.time_course
        if course.flow is not None:
            u_B2 = torch.tensor(
                [[course.scale.progress(t or 0.0) for _, t in pair] for pair in pairs]
            )
            away_BF = course.flow.move(away_BF, u_B2[:, 0], u_B2[:, 1], contexts_B)
        return end_BF + away_BF

    @cached_property
    def _means(self) -> Callable[[StratumKey, StratumKey], Tensor]:
        """Where the mean course is at the second of two times of a context.

        A context that was not in training moves as those of training do on average.
        """
        known, scale = self.trained.population.references, self.trained.time_course.scale
        contexts = sorted({context for context, _ in known})

        @lru_cache(maxsize=4096)
        def mean(start: StratumKey, key: StratumKey) -> Tensor:
            if key[0] in contexts:
                mean_F = mean_controls(known, key, None, scale)
            else:
                at_start, at_end = (
                    np.mean([mean_controls(known, (c, t), None, scale) for c in contexts], axis=0)
                    for t in (start[1], key[1])
                )
                mean_F = at_end - at_start
            return torch.from_numpy(np.asarray(mean_F, dtype=np.float32))

        return mean
