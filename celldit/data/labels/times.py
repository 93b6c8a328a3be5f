"""Times that were written down to the minute, joined to as many as cells can tell apart.

A course needs many cells at each of its times. Where a column holds more than
:data:`MAX_TIMES` times and half of them have fewer than :data:`MIN_CELLS` cells, neighbouring times
are joined until no more than that many are left and each has that many cells: again and again the
two whose union adds least to the squared distance of cells from the time that stands for them
(Ward 1963), the mean over its cells; last those that still have too few, each with its nearer
neighbour. Gaps in the times stay between bins.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from celldit.errors import outside

MAX_TIMES, MIN_CELLS = 12, 50
#: Times of fewer cells are said, as a mean of them is mostly noise.
FEW_CELLS = 20
NAMED = 4


class _Bin(NamedTuple):
    low: float
    high: float
    n_cells: int
    total: float

    @property
    def time(self) -> float:
        return self.total / self.n_cells


def find_bins(times_N: np.ndarray) -> tuple[str, ...]:
    """Bins of the cells' times as text, ``"200 to 231 as 214.6"``; none where all can stay."""
    times, counts = np.unique(times_N, return_counts=True)
    if len(times) <= MAX_TIMES or np.median(counts) >= MIN_CELLS:
        return ()
    bins = [_Bin(t, t, n, t * n) for t, n in zip(times.tolist(), counts.tolist(), strict=True)]
    while len(bins) > MAX_TIMES:
        _join(bins, int(np.argmin([_cost(a, b) for a, b in pairwise(bins)])))
    while len(bins) > 1 and min(b.n_cells for b in bins) < MIN_CELLS:
        small = int(np.argmin([b.n_cells for b in bins]))
        before = bins[small].low - bins[small - 1].high if small > 0 else np.inf
        after = bins[small + 1].low - bins[small].high if small + 1 < len(bins) else np.inf
        _join(bins, small - 1 if before <= after else small)
    # Seconds since 1970 need more digits to be told apart than hours do.
    digits = next(n for n in range(6, 18) if len({f"{b.time:.{n}g}" for b in bins}) == len(bins))
    return tuple(f"{b.low:.10g} to {b.high:.10g} as {b.time:.{digits}g}" for b in bins)


def binned(times_N: np.ndarray, bins: Sequence[str]) -> np.ndarray:
    """Times with those inside a bin replaced by the one that stands for them."""
    found = times_N.copy()
    for text in bins:
        low, _, high, _, time = text.split()
        # Bins are written with ten digits, which may round a time out of its own.
        slack = 1e-9 * max(abs(float(low)), abs(float(high)))
        own = (times_N >= float(low) - slack) & (times_N <= float(high) + slack)
        found[own] = float(time)
    return found


def warn_times(times_N: np.ndarray, bins: Sequence[str], key: str) -> None:
    """Say that times were joined, and how not to have it done, or which have few cells."""
    if not bins:
        _warn_few(times_N, key)
        return
    n_times = len(np.unique(times_N))
    warnings.warn(
        f"The column {key!r} holds {n_times} times, half of which have fewer than {MIN_CELLS} "
        f"cells; neighbouring ones were joined to {len(bins)} ({'; '.join(bins)}). For other bins "
        "write the times of your own choice into the column.",
        UserWarning,
        stacklevel=3,
    )


def _warn_few(times_N: np.ndarray, key: str) -> None:
    times, counts = np.unique(times_N, return_counts=True)
    few = [f"{time:g} ({n})" for time, n in zip(times, counts, strict=True) if n < FEW_CELLS]
    if not few:
        return
    more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
    warnings.warn(
        f"The column {key!r} has times of fewer than {FEW_CELLS} cells, which tell little of what "
        f"happens then: {', '.join(few[:NAMED])}{more}. Write a neighbouring time for these "
        "cells, or leave them out.",
        UserWarning,
        stacklevel=outside(),
    )


def _cost(first: _Bin, second: _Bin) -> float:
    weight = first.n_cells * second.n_cells / (first.n_cells + second.n_cells)
    return weight * (first.time - second.time) ** 2


def _join(bins: list[_Bin], i: int) -> None:
    first, second = bins[i : i + 2]
    bins[i : i + 2] = [
        _Bin(first.low, second.high, first.n_cells + second.n_cells, first.total + second.total)
    ]
