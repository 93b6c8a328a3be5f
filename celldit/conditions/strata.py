"""Which control cells belong to a condition: the one place that says so.

A **stratum** is a context at a time. Its controls are, in this order,

1. the control cells of the same context and time;
2. where there are none, those of the same context at the times on either side, in proportion to
   how near they are (at the nearest time where all lie on one side), since controls drift;
3. where the context has none at all, those of all other contexts, each at this time by rule 1 or 2
   and weighted by its cells;
4. where nothing is a control, all cells.

With fewer than :data:`ENOUGH` own controls the next rule fills up: n of them carry a share n / 5 of
the whole, so that a mean over one cell does not decide where every effect of the stratum begins.

Everything else follows from the shares: the mean latent that effects are measured from, how many
cells that mean is worth, and the cells that training pairs and predictions start from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from celldit.conditions.condition import ConditionTable
from celldit.conditions.time_scale import TimeScale, bracket
from celldit.errors import outside

StratumKey: TypeAlias = tuple[str, float | None]
"""Context and time, as :attr:`celldit.conditions.Condition.stratum` says them."""

ENOUGH = 5


class Origin(StrEnum):
    """Where the controls of a stratum come from."""

    OWN = "own controls"
    TIMES = "controls of other times"
    CONTEXTS = "controls of other contexts"
    CELLS = "all cells, as nothing is a control"


@dataclass(frozen=True)
class Stratum:
    """The controls of one context at one time."""

    origin: Origin  # the first of the four rules that any of them comes by
    shares: Mapping[int, float]  # of each control condition, by its row of the table; together 1
    n_own: int  # control cells of the same context and time
    n_cells: float  # independent cells that the weighted mean is worth, 1 / Σ share² / n

    @property
    def row(self) -> int:
        """The control condition with the largest share."""
        return max(self.shares, key=lambda row: (self.shares[row], -row))

    @property
    def is_identified(self) -> bool:
        """Whether the context has controls of its own, at whatever time."""
        return self.origin in (Origin.OWN, Origin.TIMES)


@dataclass(frozen=True, eq=False)
class Strata:
    """The controls of every stratum of a table of conditions."""

    table: ConditionTable
    of: Mapping[StratumKey, Stratum]  # each stratum by context and time, sorted

    @classmethod
    def of_table(cls, table: ConditionTable) -> Strata:
        """Find the controls of every context and time that a table has."""
        counts = table.counts
        keys = sorted({c.stratum for c in table.conditions}, key=str)
        of_context: dict[str, dict[StratumKey, int]] = {}
        for key, row in sorted(table.controls().items(), key=str):
            of_context.setdefault(key[0], {})[key] = row
        return cls(table, {key: _stratum(key, of_context, counts) for key in keys})

    def __getitem__(self, key: StratumKey) -> Stratum:
        return self.of[key]

    def means(self, means_CF: np.ndarray) -> dict[StratumKey, np.ndarray]:
        """Mean of each stratum's controls, of shape (F,), from the means of all C conditions."""
        return {
            key: np.add.reduce([share * means_CF[row] for row, share in stratum.shares.items()])
            for key, stratum in self.of.items()
        }

    def cells(self, key: StratumKey) -> tuple[np.ndarray, np.ndarray]:
        """Positions of a stratum's control cells, and the weight of each; weights sum to 1."""
        positions, weights = [], []
        for row, share in self[key].shares.items():
            of_row = self.table.cells_of(row)
            positions.append(of_row)
            weights.append(np.full(len(of_row), share / len(of_row)))
        return np.concatenate(positions), np.concatenate(weights)

    def borrowed(self) -> dict[StratumKey, float]:
        """Share of controls of other contexts, for strata with any in which something was done."""
        treated = {c.stratum for c in self.table.conditions if not c.is_control}
        found = {}
        for key, stratum in self.of.items():
            elsewhere = [share for row, share in stratum.shares.items()
                         if self.table.conditions[row].context != key[0]]  # fmt: skip
            if elsewhere and key in treated and stratum.origin is not Origin.CELLS:
                found[key] = float(sum(elsewhere))
        return found


def warn_other_times(strata: Strata) -> None:
    """Warn of perturbations at times of which their context has no controls."""
    treated = {c.stratum for c in strata.table.conditions if not c.is_control}
    lacking = sorted(
        (k for k, s in strata.of.items() if s.origin is Origin.TIMES and k in treated), key=str
    )
    if not lacking:
        return
    names, rest = names_of(lacking[:5]), len(lacking) - 5
    listed = ", ".join(names) + (f" and {rest} more" if rest > 0 else "")
    warnings.warn(
        f"Something was done to cells where there are no controls of the same time ({listed}). "
        "Their effects are measured from controls of other times, so they hold what time alone "
        "does. Add controls of these times; if time counts from what was done, set up the data "
        "without perturbation_key, and what was done is the course itself.",
        UserWarning,
        stacklevel=outside(),
    )


def names_of(strata: Iterable[StratumKey]) -> tuple[str, ...]:
    """Contexts and times as a user reads them."""
    return tuple(
        where if time is None else f"{where} at {time:g}".strip() for where, time in strata
    )


def mean_controls(
    means: Mapping[StratumKey, np.ndarray],
    key: StratumKey,
    at_hand: Mapping[StratumKey, np.ndarray] | None = None,
    scale: TimeScale | None = None,
) -> np.ndarray:
    """Where the controls of any stratum lie, known or not, by the rules of this module, (F,).

    Between two times of a known context it is interpolated, in the progress of the course or in
    even steps; a new context is where its controls at hand are, and without any at the mean of all
    known strata, whose `means` :meth:`Strata.means` gives.
    """
    if key in means:
        return means[key]
    context, time = key
    times = {t: mean for (c, t), mean in means.items() if c == context and t is not None}
    if times:
        shares = _nearest(sorted(times), 0.0 if time is None else time, scale)
        return np.add.reduce([share * times[t] for t, share in shares.items()])
    if at_hand and key in at_hand:
        return at_hand[key]
    return np.add.reduce(list(means.values())) / len(means)


def _stratum(
    key: StratumKey, of_context: Mapping[str, Mapping[StratumKey, int]], counts: np.ndarray
) -> Stratum:
    """Its controls, from the rows of all control conditions by context."""
    own = of_context.get(key[0], {}).get(key)
    n_own = 0 if own is None else int(counts[own])
    shares: dict[int, float] = {}
    origin = Origin.OWN
    if n_own < ENOUGH:
        shares, origin = _elsewhere(key, of_context, counts)
    if own is not None:
        share = min(n_own / ENOUGH, 1.0) if shares else 1.0
        shares = {own: share, **{row: (1 - share) * each for row, each in shares.items()}}
        origin = Origin.OWN
    if not shares:
        shares = {row: int(n) / int(counts.sum()) for row, n in enumerate(counts) if n}
        origin = Origin.CELLS
    variance = sum(share**2 / counts[row] for row, share in shares.items())
    return Stratum(origin, shares, n_own, float(1 / variance))


def _elsewhere(
    key: StratumKey, of_context: Mapping[str, Mapping[StratumKey, int]], counts: np.ndarray
) -> tuple[dict[int, float], Origin]:
    """Shares of other strata's controls; none where nothing is a control."""
    context, time = key
    own = {k: row for k, row in of_context.get(context, {}).items() if k != key}
    times = _at_time(own, time)
    if times:
        return times, Origin.TIMES
    contexts = [_at_time(rows, time) for c, rows in of_context.items() if c != context]
    sizes = [sum(share * counts[row] for row, share in each.items()) for each in contexts]
    total = sum(sizes)
    shares: dict[int, float] = {}
    for each, size in zip(contexts, sizes, strict=True):
        shares |= {row: share * size / total for row, share in each.items()}
    return shares, Origin.CONTEXTS


def _at_time(rows: Mapping[StratumKey, int], time: float | None) -> dict[int, float]:
    """Shares of one context's controls, by how near their times are to this one."""
    by_time = {t: row for (_, t), row in rows.items()}
    if time is None or None in by_time:
        return {row: 1 / len(by_time) for row in by_time.values()}
    shares = _nearest(sorted(t for t in by_time if t is not None), time)
    return {by_time[t]: share for t, share in shares.items()}


def _nearest(
    times: Sequence[float], time: float, scale: TimeScale | None = None
) -> dict[float, float]:
    """The times on either side, by how near they are; the nearest where all lie on one side."""
    low, high, share = bracket(times, time, scale)
    if low is None or high is None or not times:
        return {}
    return {low: 1.0} if low == high else {low: 1 - share, high: share}
