"""A noisy measurement of effects, drawn towards the mean effect as far as its noise says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from celldit.evaluation.expression import Expression


def denoise(cells: Expression, control: Expression) -> Expression:
    """Shrink the shift of every condition towards the mean shift of its context.

    Parameters
    ----------
    cells
        Perturbed cells, all with a context that has control cells.
    control
        Control cells.

    Returns
    -------
    Expression
        The same cells, each condition moved as a whole; dense, values below 0 may occur.

    References
    ----------
    Efron & Morris (1973), Stein's estimation rule and its competitors: the weight of a measurement
    is the share of its squared distance from the mean that is not noise.
    """
    bases = {
        context: control.dense(rows).mean(axis=0, dtype=np.float64)
        for context, rows in control.by_context().items()
    }
    moved_NG = cells.dense(np.arange(cells.n_cells))
    conditions = cells.conditions()
    for context in dict.fromkeys(key[1] for key in conditions):
        if context not in bases:
            continue
        keys = [key for key in conditions if key[1] == context]
        means_PG = np.stack(
            [moved_NG[conditions[key]].mean(axis=0, dtype=np.float64) for key in keys]
        )
        centroid_G = means_PG.mean(axis=0) if len(keys) > 1 else bases[context]
        for key, mean_G in zip(keys, means_PG, strict=True):
            rows = conditions[key]
            away_G = mean_G - centroid_G
            square = float(away_G @ away_G)
            noise = (
                float(moved_NG[rows].var(axis=0, ddof=1, dtype=np.float64).sum()) / len(rows)
                if len(rows) > 1
                else square
            )
            kept = max(1.0 - noise / square, 0.0) if square > 0 else 0.0
            moved_NG[rows] += ((kept - 1.0) * away_G).astype(np.float32)
    return replace(cells, log=moved_NG)
