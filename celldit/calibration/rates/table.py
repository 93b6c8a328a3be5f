"""A screen as a table of effects, measured in one pass over its cells."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from celldit.calibration.rates.means import mean_rates, measured_fold_change
from celldit.conditions import ConditionTable
from celldit.data.store import CellStore
from celldit.effects.tables.table import SEP, EffectTable
from celldit.errors import InputError, examples

# Groups measured in one pass over the cells, by how many numbers they are: 400 MB.
MOST_NUMBERS = 25_000_000


def measure_effect_table(
    cells: CellStore,
    sep: str,
    *,
    min_cells: int,
    direction: str,
    source: str,
    licence: str,
    species: str,
) -> EffectTable:
    """Log fold changes of mean rates against the controls of the same context, with their errors.

    Parameters
    ----------
    cells
        A screen, in memory or on disk; it is read in one pass, or a few where there are very many
        conditions and genes.
    sep
        What joins perturbations of a combination in the screen. The table has ``+``, unless names
        hold it.
    min_cells
        Conditions, and controls, of fewer cells are left out.
    direction, source, licence, species
        What the table says of itself.

    Raises
    ------
    InputError
        If no condition has enough cells and controls.
    """
    table = ConditionTable.from_cells(cells, sep)
    counts = table.counts
    controls = table.controls(min_cells)
    treated = [
        i
        for i, c in enumerate(table.conditions)
        if not c.is_control and counts[i] >= min_cells and c.stratum in controls
    ]
    if not treated:
        few = Counter(c.label(sep, cells.control) for c in table.conditions)
        raise InputError(
            f"No perturbation has {min_cells} cells and {min_cells} controls of the same context "
            f"(there are {examples(list(few))}); lower min_cells, or check the columns of the "
            "setup."
        )
    effects = np.empty((len(treated), cells.n_genes), dtype=np.float32)
    errors = np.empty_like(effects)
    at_once = max(1, MOST_NUMBERS // cells.n_genes)
    for start in range(0, len(treated), at_once):
        some = treated[start : start + at_once]
        needed = {controls[table.conditions[i].stratum] for i in some}
        rates = mean_rates(cells, table.index, {*some, *needed})
        for row, i in enumerate(some, start=start):
            control = rates[controls[table.conditions[i].stratum]]
            effects[row], noise_G = measured_fold_change(control, rates[i])
            errors[row] = np.sqrt(noise_G)
    conditions = [table.conditions[i] for i in treated]
    written = sep if any(SEP in part for c in conditions for part in c.parts) else SEP
    obs = pd.DataFrame(
        {
            "perturbation": [c.label(written, cells.control) for c in conditions],
            "context": [c.context for c in conditions],
            "direction": direction,
            "n_cells": counts[treated].astype(np.float64),
            "n_control": [float(counts[controls[c.stratum]]) for c in conditions],
        }
    )
    for name in ("doses", "time"):
        values = [getattr(c, name) for c in conditions]
        if any(value is not None for value in values):
            obs[name] = [_text(value) for value in values]
    genes = tuple(cells.genes)
    return EffectTable(obs, genes, effects, errors, source, licence, species, sep=written)


def _text(value: object) -> str:
    """A dose, several, or a time as text."""
    return "+".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"
