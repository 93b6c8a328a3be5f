"""Random halves of the cells of every condition."""

from __future__ import annotations

import numpy as np

from celldit.evaluation.expression import Expression


def split_halves(cells: Expression, *, seed: int = 0) -> tuple[Expression, Expression]:
    """Split the cells of each condition into two halves of one size.

    Of an odd number, one cell is left out. A condition with a single cell stays in both parts as it
    is, too small to be scored.
    """
    rng = np.random.default_rng(seed)
    first, second = [], []
    for rows in cells.conditions().values():
        shuffled = rng.permutation(rows)
        half = max(len(rows) // 2, 1)
        first.append(shuffled[:half])
        second.append(shuffled[half : 2 * half] if len(rows) > 1 else shuffled)
    return (
        cells.take(np.sort(np.concatenate(first))),
        cells.take(np.sort(np.concatenate(second))),
    )
