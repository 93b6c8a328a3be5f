"""Training conditions that are predicted from all the others: what every fit of means tries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.extrapolation import Extrapolation, Known
from celldit.effects import EffectPrior

MIN_CELLS = 20
# With fewer conditions of so many cells, those of fewer cells tell, too.
MIN_CONDITIONS = 8


class LeftOut(NamedTuple):
    """A perturbed condition of training, and how far it is from the others.

    Attributes
    ----------
    condition, kind
        The condition, and what it is to the others, apart from its time.
    row
        Of the effect model's conditions.
    treated, control
        Rows of the table of conditions, its own and that of its controls.
    """

    condition: Condition
    kind: Extrapolation
    row: int
    treated: int
    control: int


def left_out(table: ConditionTable, prior: EffectPrior, most: int, seed: int) -> list[LeftOut]:
    """Those with enough cells and controls.

    Parameters
    ----------
    table, prior
        Conditions of the training cells, and the effect model, which may know conditions of an
        earlier training, too.
    most, seed
        How many, and of the choice where there are more.
    """
    index, controls = table.row_of, table.controls()
    tried = [i for i, c in enumerate(prior.conditions) if c in index and c.stratum in controls]
    counted = [i for i in tried if table.counts[controls[prior.conditions[i].stratum]] >= MIN_CELLS]
    # With few controls everywhere these have to do: untried, every effect would be taken for sure.
    tried = counted or tried
    cells = {i: table.counts[index[prior.conditions[i]]] for i in tried}
    least = MIN_CELLS if sum(n >= MIN_CELLS for n in cells.values()) >= MIN_CONDITIONS else 1
    enough = [i for i in tried if cells[i] >= least]
    parts = frozenset(part for c in prior.conditions for part in c.parts)
    known, found = Known(prior.conditions, parts, prior.elsewhere), []
    for i in sorted(np.random.default_rng(seed).permutation(enough)[:most].astype(int).tolist()):
        condition = prior.conditions[i]
        kind = known.classify(condition, left_out=True).apart_from_time
        found.append(LeftOut(condition, kind, i, index[condition], controls[condition.stratum]))
    return found
