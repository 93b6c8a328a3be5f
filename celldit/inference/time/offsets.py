"""Cells that are sent to another time of training, held to the mean of the cells measured there.

How cells differ between two times of training was measured, and what decoded rates make of it falls
short where counts are few: what an autoencoder makes of a cell holds that cell's own noise. So
rates are multiplied, gene by gene and alike in all cells, by what gives controls that were sent
from the one time to the other the change of mean log expression that was measured
(:class:`~celldit.calibration.temporal_means.TemporalMeans`). As with the mean of a perturbation
(:mod:`celldit.calibration.means`) that belongs to the times and not to the cells that are passed,
so it is found from new cells of the model's own, always the same ones, with their counts. Perturbed
cells get what controls get.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.means import LEAST_ANSWER, MOST_OFFSET, ROUNDS
from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.inference.batch import ConditionBatch
from celldit.inference.counterfactual import Offset
from celldit.inference.edit import EditConfig
from celldit.inference.generation import new_cells
from celldit.inference.solver import SolverConfig
from celldit.inference.transport import Route, transport_map
from celldit.latent.expected_log import expected_log
from celldit.training.trained import Trained

N_CELLS = 512
STEP = 0.1


def course_offsets(
    trained: Trained,
    here: ConditionBatch,
    there: ConditionBatch,
    sampler: str,
    config: SolverConfig,
) -> Offset:
    """What is added to the log rates of cells on their way through time.

    Parameters
    ----------
    trained
        The model.
    here, there
        Own condition of each cell, and the one that it is sent to; nothing is added between
        strata whose means were not measured.
    sampler, config
        The road that the cells take.
    """

    @cache
    def between(start: StratumKey, end: StratumKey) -> Tensor:
        if not trained.temporal_means.knows(start, end):
            return torch.zeros(len(trained.genes))
        return _offset(trained, start, end, sampler, config)

    def of_cells(at_B: np.ndarray) -> Tensor:
        starts = [here.conditions[q].stratum for q in here.row[at_B]]
        ends = [there.conditions[q].stratum for q in there.row[at_B]]
        return torch.stack([between(*pair) for pair in zip(starts, ends, strict=True)])

    return of_cells


@torch.no_grad()
def _offset(
    trained: Trained,
    start: StratumKey,
    end: StratumKey,
    sampler: str,
    config: SolverConfig,
) -> Tensor:
    """The offset of each gene from one time of a context to another, (G,)."""
    autoencoder, means = trained.autoencoder, trained.temporal_means.means
    own, goal = (Condition(context=context, time=time) for context, time in (start, end))
    cells = new_cells(trained, own, N_CELLS, seed=0)
    z_NKD, keys = autoencoder.encode(cells), np.arange(N_CELLS)
    here, there = (
        ConditionBatch.of_rows(trained, [condition], 0 * keys) for condition in (own, goal)
    )
    journey = Route(here, there, keys, torch.ones(1))
    moved_NKD = transport_map(trained, journey, sampler, config, EditConfig(), seed=0)(z_NKD, keys)
    size_N = torch.from_numpy(cells.size_factors)
    counts_NG = torch.from_numpy(cells.counts.toarray())
    before = autoencoder.decode(z_NKD, size_N)
    after_NG = autoencoder.decode(moved_NKD, size_N).mean_BG

    def level(new_NG: Tensor) -> Tensor:
        logs = expected_log(counts_NG, before.mean_BG, new_NG, before.theta_G, size_N)
        return logs.mean(0)

    wanted_G = level(before.mean_BG) + torch.from_numpy(means[end] - means[start])
    return _solved(lambda offset_G: level(after_NG * offset_G.exp()), wanted_G)


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
