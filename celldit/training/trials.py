"""Conditions and cells held out of a run of the flow, made into trials of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.stacking import Trial
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.embedding import ConditionEmbedding
from celldit.conditions.extrapolation import Extrapolation, Known
from celldit.conditions.population import Population
from celldit.conditions.strata import Strata
from celldit.training.latents import LatentFile

MAX_CONDITIONS = 16
MAX_CELLS = 160
MIN_CELLS = 10


def make_trials(
    z_NKD: Tensor | LatentFile,
    table: ConditionTable,
    population: Population,
    held_out: list[Condition],
    held_out_rows: np.ndarray,
    rng: np.random.Generator,
    unit_K: Tensor,
) -> list[Trial]:
    """Set up the held-out conditions, and held-out cells of trained ones, as trials."""
    strata, apart = Strata.of_table(table), set(held_out)
    trained = Known(c for c in population.prior.conditions if c not in apart)
    chosen: list[tuple[int, Extrapolation, np.ndarray]] = []
    order = held_out_rows[np.argsort(table.index[held_out_rows], kind="stable")]
    ends = np.cumsum(np.bincount(table.index[order], minlength=len(table)))
    n_seen = 0
    # Every draw depends on those before it, so the order of conditions is drawn first.
    for i in rng.permutation(len(table)):
        condition = table.conditions[i]
        truth = order[ends[i - 1] if i else 0 : ends[i]]
        if condition.is_control or len(truth) < MIN_CELLS:
            continue
        if condition in apart:
            kind = trained.classify(condition).apart_from_time
            chosen.append((i, kind, truth))
        elif n_seen < MAX_CONDITIONS:
            n_seen += 1
            chosen.append((i, Extrapolation.SEEN, truth))
    if not chosen:
        return []
    # Of thousands of conditions only these are looked up.
    embedding = ConditionEmbedding.of(
        population.without(held_out),
        [table.conditions[i] for i, _, _ in chosen],
        z_NKD.shape[1:],
    )
    offset_CF = population.offset(table)
    trials = []
    for row, (i, kind, truth) in enumerate(chosen):
        cells, weight = strata.cells(table.conditions[i].stratum)
        n_starts = min(int(np.count_nonzero(weight)), MAX_CELLS)
        cells = rng.choice(cells, n_starts, replace=False, p=weight)
        truth = rng.choice(truth, min(len(truth), 2 * MAX_CELLS), replace=False)
        conditioning = embedding.conditioning(np.full(len(cells), row), from_noise=False)
        start_NKD = z_NKD[torch.from_numpy(cells)] + conditioning.effect_BKD
        if offset_CF is not None:
            start_NKD = start_NKD + torch.from_numpy(offset_CF[i]).view(z_NKD.shape[1:])
        truth_MKD = z_NKD[torch.from_numpy(truth)]
        trials.append(Trial(kind, start_NKD, conditioning, truth_MKD, unit_K))
    return trials


def hold_out(
    conditions: Sequence[Condition],
    share: float,
    rng: np.random.Generator,
    always_known: Sequence[Condition] = (),
    last: Sequence[Condition] = (),
) -> list[Condition]:
    """Choose conditions to keep from training, such that the rest can still predict them.

    A condition may be held out if every one of its perturbations stays in another condition. Those
    `always_known` are not to be held out, but help to predict the others; the `last` are held out
    only where no others can be: those of earlier trial runs.
    """
    wanted = min(MAX_CONDITIONS, math.ceil(share * len(conditions)))
    known = (*conditions, *always_known)
    uses = Counter(part for c in known for part in set(c.parts))
    # Another dose or time of the same in the same context would make it as good as seen.
    places = Counter((c.parts, c.context) for c in known)
    chosen: list[Condition] = []
    order = rng.permutation(len(conditions)).tolist()
    later = set(last)
    for i in sorted(order, key=lambda i: conditions[i] in later):
        if len(chosen) >= wanted:
            break
        candidate = conditions[i]
        place = candidate.parts, candidate.context
        if places[place] < 2 and all(uses[part] > 1 for part in candidate.parts):
            uses.subtract(set(candidate.parts))
            places.subtract([place])
            chosen.append(candidate)
    return chosen
