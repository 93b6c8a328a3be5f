"""Conditions and cells held out of a run of the flow, made into trials of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.stacking import Trial
from celldit.conditions.extrapolation import Extrapolation, classify
from celldit.training.latents import LatentFile

if TYPE_CHECKING:
    from celldit.conditions import Condition, ConditionTable
    from celldit.conditions.population import Population

MAX_CONDITIONS = 16
MAX_CELLS = 160


def make_trials(
    z_NKD: Tensor | LatentFile,
    table: ConditionTable,
    population: Population,
    held_out: list[Condition],
    held_out_rows: np.ndarray,
    rng: np.random.Generator,
    unit_K: Tensor,
    *,
    with_parts: bool = False,
) -> list[Trial]:
    """Set up the held-out conditions, and held-out cells of trained ones, as trials."""
    from celldit.conditions.embedding import ConditionEmbedding
    from celldit.conditions.strata import Strata

    strata = Strata.of_table(table)
    trained = [c for c in population.prior.conditions if c not in set(held_out)]
    reduced = population.without(held_out)
    is_held_out = np.array([c in set(held_out) for c in table.conditions])
    of_row = table.index[held_out_rows]
    embedding = ConditionEmbedding.of(
        reduced, table.conditions, z_NKD.shape[1:], with_parts=with_parts
    )
    offset_CF = population.offset(table)
    trials = []
    candidates = rng.permutation(len(table))
    n_seen = 0
    for i in candidates:
        condition = table.conditions[i]
        if condition.is_control:
            continue
        truth = held_out_rows[of_row == i]
        if is_held_out[i]:
            kind = classify(condition, trained).apart_from_time
        else:
            kind = Extrapolation.SEEN
            n_seen += len(truth) >= 10
        if len(truth) < 10 or (kind is Extrapolation.SEEN and n_seen > MAX_CONDITIONS):
            continue
        cells, weight = strata.cells(condition.stratum)
        n_starts = min(int(np.count_nonzero(weight)), MAX_CELLS)
        cells = rng.choice(cells, n_starts, replace=False, p=weight)
        truth = rng.choice(truth, min(len(truth), 2 * MAX_CELLS), replace=False)
        told = embedding.tell(np.full(len(cells), i), from_noise=False)
        start_NKD = z_NKD[torch.from_numpy(cells)] + told.effect_BKD
        if offset_CF is not None:
            start_NKD = start_NKD + torch.from_numpy(offset_CF[i]).view(z_NKD.shape[1:])
        truth_MKD = z_NKD[torch.from_numpy(truth)]
        trials.append(Trial(kind, start_NKD, told, truth_MKD, unit_K))
    return trials


def hold_out(
    conditions: Sequence[Condition],
    share: float,
    rng: np.random.Generator,
    always_known: Sequence[Condition] = (),
    last: Sequence[Condition] = (),
) -> list[Condition]:
    """Choose conditions to keep from training, such that the rest can still predict them.

    A condition may be held out if every one of its perturbations stays in another condition.

    Parameters
    ----------
    conditions
        The perturbed conditions of training.
    share
        Of the conditions.
    rng
        Of the choice.
    always_known
        Conditions that are not to be held out, but help to predict the others.
    last
        Conditions that are held out only where no others can be: those of earlier trial runs.
    """
    wanted = min(MAX_CONDITIONS, math.ceil(share * len(conditions)))
    left = list(conditions)
    uses = Counter(part for c in (*conditions, *always_known) for part in set(c.parts))
    chosen: list[Condition] = []
    order = rng.permutation(len(conditions)).tolist()
    later = set(last)
    for i in sorted(order, key=lambda i: conditions[i] in later):
        if len(chosen) >= wanted:
            break
        candidate = conditions[i]
        # Most of a screen of single perturbations are told by this alone, however many there are.
        if any(uses[part] < 2 for part in candidate.parts):
            continue
        rest = [c for c in left if c != candidate]
        if classify(candidate, [*rest, *always_known]) in (
            Extrapolation.CONTEXT,
            Extrapolation.COMBINATION,
        ):
            left = rest
            uses.subtract(set(candidate.parts))
            chosen.append(candidate)
    return chosen
