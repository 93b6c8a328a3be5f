"""Log fold changes of genes, as a table in ``uns``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import anndata as ad
import pandas as pd

from celldit.errors import InputError, examples
from celldit.tl.cells import read_cells, trained_parts, writable

if TYPE_CHECKING:
    from celldit.model import CellDiT

__all__ = ["effects"]


def effects(
    adata: ad.AnnData,
    model: CellDiT,
    perturbations: Sequence[str] | str,
    *,
    dose: object = None,
    time: float | Sequence[float] | None = None,
    key_added: str = "celldit_effects",
) -> pd.DataFrame:
    """Predict the log fold change of every gene, with its uncertainty.

    Parameters
    ----------
    adata
        Cells whose contexts are of interest: the table holds the contexts that occur in `adata` and
        were in training. (For contexts the model never saw use :func:`counterfactual`.)
    model
        A trained model.
    perturbations
        Labels.
    dose, time
        Where the training data have them; a list gives one block of rows for each, as
        :func:`celldit.pl.dose_response` and :func:`celldit.pl.trajectory` take them.
    key_added
        Key in ``uns``.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``. One row per perturbation, context and gene:
        ``perturbation``, ``context``, ``gene``, ``log_fold_change`` (natural logarithm), ``sd``
        (its posterior standard deviation), ``extrapolation``; ``dose`` and ``time`` where given.

    Raises
    ------
    InputError
        If no context of `adata` was in training, or a number cannot be used.
    UnknownNameError
        If nothing is known of a perturbation.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> table = cd.tl.effects(adata, model, ["STAT1", "IRF1+JAK2"])
    >>> sorted(table["extrapolation"].unique())
    ['new combination', 'seen']
    """
    trained = trained_parts(model)
    target = writable(adata, copy=False)
    here = set(map(str, read_cells(adata, trained).contexts))
    known = {c.context for c in trained.frequencies}
    if not here & known:
        raise InputError(
            f"No context of adata ({examples(sorted(here))}) was in training "
            f"({examples(sorted(known))}); use cd.tl.counterfactual for new contexts."
        )
    tables = []
    for one_dose in _listed(dose):
        for one_time in _listed(time):
            table = model.predict_effects(perturbations, dose=one_dose, time=one_time)
            if one_dose is not None:
                table["dose"] = one_dose
            if one_time is not None:
                table["time"] = float(one_time)
            tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    table = table[table["context"].isin(here)].reset_index(drop=True)
    # A file keeps row names as text, so they are text from the start.
    table.index = table.index.astype(str)
    target.uns[key_added] = table
    return table


def _listed(value: object) -> list:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return [value]
    return list(value)
