"""What unperturbed cells alone say of perturbing each gene, by their covariance.

Where a gene g happens to be low, other genes are as they might be were it knocked out. With x log
expression and slopes b_gh = cov(x_g, x_h) / var(x_g) within contexts, a knock-out of g is taken to
change gene h by -b_gh mean(x_g): the effect of g lies along the column of g of the covariance. An
activation is taken to raise x_g by 1. What of this is true, if anything, is for the shuffles of
:mod:`celldit.effects.tables.fit` to say, and how much for the amplitude.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from celldit.arguments import check_known
from celldit.data.store import CellStore
from celldit.effects.tables.table import DIRECTIONS, SEP, EffectTable
from celldit.errors import InputError

MAX_CELLS = 5000
MIN_CELLS = 50
# Genes that are seen in a smaller share of the controls have no slopes to speak of.
LEAST_SEEN = 0.02


def control_table(
    cells: CellStore, direction: str | Mapping[str, str], source: str, seed: int
) -> EffectTable:
    """A table with a row for each gene that controls, at most 5,000 of them, express.

    A direction is that of all perturbations, or of each by name; what is not named is a knock-out.

    InputError if there are fewer than 50 controls. UnknownNameError if a direction is not known.
    """
    of_column = {} if isinstance(direction, str) else dict(direction)
    usual = direction if isinstance(direction, str) else "knock-out"
    check_known([usual, *of_column.values()], DIRECTIONS[1:4], "direction")
    rows = np.flatnonzero(cells.is_control)
    if len(rows) < MIN_CELLS:
        raise InputError(
            f"There are {len(rows)} control cells, too few for their covariance; it needs "
            f"{MIN_CELLS}."
        )
    if len(rows) > MAX_CELLS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_CELLS, replace=False))
    some = cells.take(rows)
    log_NG = some.log_normalized().toarray().astype(np.float64)
    mean_G, seen_G = log_NG.mean(0), (log_NG > 0).mean(0) >= LEAST_SEEN
    for context in np.unique(some.contexts):
        own = some.contexts == context
        log_NG[own] -= log_NG[own].mean(0)
    variance_G = log_NG.var(0)
    kept = np.flatnonzero(seen_G & (variance_G > 0))
    names = [cells.genes[g] for g in kept]
    slope_PG = log_NG[:, kept].T @ log_NG / len(log_NG) / variance_G[kept, None]
    error_PG = np.sqrt(variance_G / len(log_NG) / variance_G[kept, None])
    of_name = [of_column.get(name, usual) for name in names]
    change_P = np.where([d == "activation" for d in of_name], 1.0, -mean_G[kept])
    effects_PG = change_P[:, None] * slope_PG
    # What a perturbation does to its own target is not what cells tell.
    effects_PG[np.arange(len(kept)), kept] = np.nan
    obs = pd.DataFrame(
        {"perturbation": names, "context": "", "direction": of_name, "n_cells": float(len(rows))}
    )
    errors_PG = np.abs(change_P[:, None]) * error_PG
    return EffectTable(
        obs,
        tuple(cells.genes),
        effects_PG.astype(np.float32),
        errors_PG.astype(np.float32),
        source,
        sep=SEP,
    )
