"""Which genes change, and how sure that is: a table in ``uns``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_number
from celldit.compute import threads
from celldit.errors import InputError
from celldit.inference import request
from celldit.inference.effects.changes import new_controls
from celldit.inference.effects.table import (
    CHANGED,
    FULL_ROW_BYTES,
    check_table,
    effect_conditions,
    effect_strata,
    full_effect_table,
)
from celldit.model import CellDiT
from celldit.pl.effects.effect_heatmap import check_effects, effect_names
from celldit.pl.gene_names import GeneSymbols
from celldit.tl.cells import read_cells, text_rows, trained_parts, with_symbols, writable

STATISTICS = ("z", "confidence", "log2_fold_change")


def effects(
    adata: ad.AnnData,
    model: CellDiT,
    perturbations: Sequence[str] | str | None = None,
    *,
    contexts: Sequence[str] | str | None = None,
    dose: object = None,
    time: float | Sequence[float] | None = None,
    min_change: float = CHANGED,
    key_added: str = "celldit_effects",
) -> pd.DataFrame:
    """Say which genes change under perturbations, by how much, and how sure that is.

    Perturbations may have been measured in a context, only in other contexts, in no combination of
    that kind, or never (with features). Contexts may be new: their control cells in `adata` say
    where they start. What the probabilities are worth was measured on conditions left out
    (``docs/effects.md``).

    Parameters
    ----------
    adata
        Cells whose contexts are of interest.
    model
        A trained model.
    perturbations
        Labels; None for all of training.
    contexts
        Contexts, those of training or of control cells of `adata`; None for all that have cells in
        `adata`.
    dose, time
        Where the training data have them; a list gives one block of rows for each, as
        :func:`celldit.pl.dose_response` and :func:`celldit.pl.trajectory` take them.
    min_change
        Size of a change that matters, in logarithms to the base 2, for ``p_changed``.
    key_added
        Key in ``uns``.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``. One row per perturbation, context and gene:
        ``perturbation``, ``context``, ``gene``, and ``symbol`` where genes are Ensembl ids (a
        column of ``adata.var``, else bundled); ``log_fold_change`` (natural logarithm of the mean
        rate after over before) and ``sd`` (root mean square error to expect);
        ``log2_fold_change`` and ``log2_sd``, the same to the base 2; ``z``, their ratio;
        ``p_sign``, probability that the true change has this sign; ``lfsr``, local false sign
        rate: probability that it has the other sign or none (Stephens 2017), by which to call genes
        changed; ``p_changed``, probability that it is larger than `min_change`; ``low``, ``high``,
        ends of the 90% interval (natural logarithm); ``base_mean``, counts per 10,000 in the
        controls; ``extrapolation``; ``dose``, ``time`` and ``beyond_range`` where given.

    Raises
    ------
    InputError
        If a context was neither in training nor has control cells in `adata`, or a number cannot be
        used.
    UnknownNameError
        If nothing is known of a perturbation, or a context is in neither.
    NotTrainedError
        If the model was not trained.
    OutOfMemoryError
        If the table takes more than the memory; said before any effect is predicted.

    Examples
    --------
    >>> table = cd.tl.effects(adata, model, ["STAT1", "IRF1+JAK2"])
    >>> sorted(table["extrapolation"].unique())
    ['new combination', 'seen']
    >>> changed = table[table["lfsr"] < 0.05]
    >>> "STAT1" in set(changed["gene"])
    True
    """
    trained = trained_parts(model)
    target = writable(adata, key_added)
    check_number(min_change, "min_change")
    cells = read_cells(adata, trained)
    labels = request.labels_or_all(trained, perturbations)
    contexts = None if contexts is None else _listed(contexts, "contexts")
    with threads():
        controls = new_controls(trained, cells)
        strata = effect_strata(trained, set(map(str, cells.contexts)), contexts, controls)
        asked = []
        for one_dose in _listed(dose, "dose"):
            for one_time in _listed(time, "time"):
                when = request.check_time(one_time, trained.fields)
                conditions = effect_conditions(trained, labels, strata, one_dose, when)
                asked.append((one_dose, one_time, conditions))
        n_conditions = sum(len(conditions) for *_, conditions in asked)
        check_table(n_conditions, len(trained.genes), FULL_ROW_BYTES)
        tables = []
        for one_dose, one_time, conditions in asked:
            request.warn_outside(conditions, trained.frequencies)
            table = full_effect_table(trained, conditions, controls, changed=min_change)
            if one_dose is not None:
                table["dose"] = one_dose
            if one_time is not None:
                table["time"] = float(one_time)
            tables.append(table)
    found = with_symbols(pd.concat(tables, ignore_index=True), adata.var)
    target.uns[key_added] = text_rows(found)
    return found


def ranked_genes(
    effects: pd.DataFrame,
    *,
    by: Literal["z", "confidence", "log2_fold_change"] = "z",
    gene_symbols: GeneSymbols | None = None,
) -> pd.DataFrame:
    """Bring effects into the form that enrichment tools take: conditions in rows, genes in columns.

    decoupler takes the table as it is, as in ``dc.mt.ulm(ranked, network)``; gseapy takes one row,
    ``gseapy.prerank(rnk=ranked.loc["STAT1"].sort_values(ascending=False), ...)``.

    Parameters
    ----------
    effects
        What :func:`effects` returned.
    by
        ``"z"``, the change over its standard deviation; ``"confidence"``, its sign times one less
        the local false sign rate; ``"log2_fold_change"``.
    gene_symbols
        What columns are called, as gene sets and networks know genes: a column of `effects`, or
        symbols by gene; by default the symbols of Ensembl ids, and names of genes as they are.

    Returns
    -------
    pandas.DataFrame
        One row for each condition, named by its perturbation, and by its context, dose and time
        where there are several; one column for each gene; no value is missing.

    Raises
    ------
    InputError
        If `effects` was made by something else, or `by` is no statistic.
    UnknownNameError
        If `gene_symbols` is no column of it.

    Examples
    --------
    >>> table = cd.tl.effects(adata, model, ["STAT1", "JAK2"], contexts="rep_1")
    >>> ranked = cd.tl.ranked_genes(table)
    >>> ranked.loc["STAT1"].sort_values().index[0]
    'STAT1'
    """
    check_effects(effects)
    if by not in STATISTICS:
        raise InputError(f"by={by!r} must be one of {', '.join(map(repr, STATISTICS))}.")
    if not {"z", "lfsr", "log2_fold_change"} <= set(effects.columns):
        raise InputError(
            "effects holds no probabilities; make the table with cd.tl.effects(adata, model, ...)."
        )
    kept = [name for name in ("context", "dose", "time") if name in effects.columns
            and effects[name].nunique() > 1]  # fmt: skip
    row = effects["perturbation"].astype(str)
    for name in kept:
        row = row + " | " + effects[name].astype(str)
    values = effects[by] if by in effects.columns else (
        np.sign(effects["log2_fold_change"]) * (1 - effects["lfsr"])
    )  # fmt: skip
    genes = effects["gene"].map(effect_names(effects, gene_symbols).symbol)
    long = pd.DataFrame({"condition": row, "gene": genes, "value": values})
    wide = long.pivot_table(index="condition", columns="gene", values="value", sort=False)
    wide.index.name = wide.columns.name = None
    return wide


def _listed(value: object, name: str) -> list:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return [value]
    listed = list(value)
    if not listed:
        raise InputError(f"{name}=[] asks for nothing; give one or several, or leave it out.")
    return listed
