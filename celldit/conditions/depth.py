"""Controls and treated cells that were sequenced to different depths.

Expression is counted per library size, so a deeper cell is no other cell. But the fewer counts,
the more genes are seen in none, and what is nonlinear in counts, such as a mean of logarithms,
moves with depth alone. Where medians differ by a factor of 2, which is far more than in any of the
bundled screens, the user is told.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from celldit.conditions.condition import ConditionTable
from celldit.conditions.strata import StratumKey, names_of
from celldit.errors import outside

FACTOR = 2.0
# Medians of fewer cells differ that much by chance.
MIN_CELLS = 20
NAMED = 3


class Depths(NamedTuple):
    """Median library sizes of a stratum."""

    stratum: StratumKey
    controls: float
    treated: float

    @property
    def ratio(self) -> float:
        """Of the larger to the smaller."""
        return max(self.controls / self.treated, self.treated / self.controls)


def unequal_depths(table: ConditionTable, size_factors: np.ndarray) -> list[Depths]:
    """Strata whose controls and treated cells differ in depth, those that differ most first."""
    keys = sorted({c.stratum for c in table.conditions}, key=str)
    place = {key: i for i, key in enumerate(keys)}
    kind_C = np.array([2 * place[c.stratum] + c.is_control for c in table.conditions])
    kind_N = kind_C[table.index]
    ends = np.cumsum(np.bincount(kind_N, minlength=2 * len(keys)))
    sizes = np.split(size_factors[np.argsort(kind_N, kind="stable")], ends[:-1])
    found = [
        Depths(key, float(np.median(controls)), float(np.median(treated)))
        for key, treated, controls in zip(keys, sizes[::2], sizes[1::2], strict=True)
        if min(len(controls), len(treated)) >= MIN_CELLS
    ]
    apart = [one for one in found if one.ratio >= FACTOR]
    return sorted(apart, key=lambda one: one.ratio, reverse=True)


def warn_unequal_depths(table: ConditionTable, size_factors: np.ndarray) -> None:
    """Warn of strata whose controls and treated cells differ in depth, with both medians."""
    apart = unequal_depths(table, size_factors)
    if not apart:
        return
    said = [
        f"{(f'{name}: ' if name else '')}{one.controls:.4g} in controls, {one.treated:.4g} in "
        "treated cells"
        for one, name in zip(apart, names_of(one.stratum for one in apart), strict=True)
    ]
    more = f"; and {len(said) - NAMED} more contexts" if len(said) > NAMED else ""
    warnings.warn(
        f"Median library sizes differ by a factor of {FACTOR:g} or more ({'; '.join(said[:NAMED])}"
        f"{more}). Part of the effects found may be this difference in depth; if it is one of "
        "sequencing, bring all cells to one depth with sc.pp.downsample_counts.",
        UserWarning,
        stacklevel=outside(),
    )
