"""Rates of genes in the control cells of each context, from which log fold changes are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from celldit.calibration.rates.fold_change import PSEUDO_RATE, ControlRates
from celldit.calibration.rates.means import mean_rates
from celldit.calibration.reference_controls import ReferenceControls
from celldit.conditions import ConditionTable
from celldit.data.store import CellStore

__all__ = ["from_arrays", "measure_control_rates", "to_arrays"]


def measure_control_rates(
    cells: CellStore, table: ConditionTable, references: ReferenceControls
) -> ControlRates:
    """Mean counts per 10,000 in the controls of each context and time that have any.

    One count at the rate that the decoder expects is added to those measured, since a few cells
    without a count do not prove a gene silent.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    references
        What stands in for controls.

    Returns
    -------
    dict
        Float32, shape (G,), by (context, time).
    """
    controls, rates = table.controls(), {}
    found = mean_rates(cells, table.index, controls.values())
    for stratum, row in controls.items():
        measured, expected_G = found[row], np.maximum(references.of(stratum).rate_G, 1e-6)
        total_G = measured.mean_G - PSEUDO_RATE + measured.of_one
        rates[stratum] = (total_G / (1 + measured.of_one / expected_G)).astype(np.float32)
    return rates


def to_arrays(rates: ControlRates) -> dict[str, np.ndarray]:
    """One row for each context and time, for safetensors; none where nothing is known."""
    return {"rates": np.stack(list(rates.values()))} if rates else {}


def from_arrays(
    keys: Sequence[Sequence[Any]], arrays: Mapping[str, np.ndarray], n_genes: int
) -> ControlRates:
    """Rebuild what :func:`to_arrays` wrote; models of the first release have none.

    Raises
    ------
    ValueError
        If keys, rates and genes do not fit together.
    """
    rates_SG = arrays.get("rates", np.empty((0, n_genes), dtype=np.float32))
    if rates_SG.shape != (len(keys), n_genes):
        raise ValueError("its control rates fit neither its contexts nor its genes")
    return {
        (str(context), time): rate_G for (context, time), rate_G in zip(keys, rates_SG, strict=True)
    }
