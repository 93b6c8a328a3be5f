"""At which dose a drug acts: curves with EC50 from measured cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.analysis.dose_curves import fit_curves
from celldit.arguments import check_kind, check_known, check_seed, check_whole, text_list
from celldit.calibration.rates.means import MeanRates, mean_rates
from celldit.compute import threads
from celldit.conditions import ConditionTable
from celldit.conditions.strata import Strata, StratumKey
from celldit.data.cells import Cells
from celldit.errors import InputError
from celldit.tl.cells import measured_cells, text_rows, with_symbols, writable

#: Two doses do not tell an EC50 from a size.
MIN_DOSES = 3


def dose_response(
    adata: ad.AnnData,
    perturbations: Sequence[str] | str | None = None,
    *,
    programs: Mapping[str, Sequence[str]] | None = None,
    min_cells: int = 10,
    seed: int = 0,
    key_added: str = "dose_response",
) -> pd.DataFrame:
    """Fit a dose-response curve to every gene, with its EC50 and how sure that is.

    Measured log fold changes of each dose against the controls of the context are fitted by Hill
    curves, which are monotone; what the cells leave open is summed over
    (:mod:`celldit.analysis.dose_curves`).

    Parameters
    ----------
    adata
        Measured cells, set up with ``dose_key``.
    perturbations
        Labels of single perturbations; None for all that have three doses.
    programs
        Gene sets by name; curves are then of the summed counts of each in place of genes.
    min_cells
        Least cells of a dose, and of the controls; doses with fewer are left out.
    seed
        Of the draws that bands are made of.
    key_added
        Key in ``uns``.

    Returns
    -------
    pandas.DataFrame
        One row for each perturbation, context and gene, the surest first, also in
        ``uns[key_added]``: ``perturbation``, ``context`` (and ``time``), ``gene``; ``ec50`` with
        ``ec50_low`` and ``ec50_high``, the ends of its 90% interval; ``in_range``, the probability
        that it lies between the doses measured; ``slope`` of the curve; ``log2_fold_change`` at the
        highest plateau with ``log2_sd``; ``lfsr``, local false sign rate: call genes that respond
        by it. An EC50 means something only where there is a response, and is unknown beyond the
        doses where `in_range` is small.

        ``uns[key_added + "_points"]`` holds a row for each dose besides: ``dose``,
        ``log_fold_change`` (natural logarithm, measured) with its ``sd``, and the curve: ``fitted``
        with its 90% band ``low``, ``high``. :func:`celldit.pl.dose_response` draws them.

    Raises
    ------
    InputError
        If `adata` was set up without doses, or no perturbation has three doses with cells enough.
    UnknownNameError
        If a perturbation was not measured, or a gene of a program does not exist.

    Examples
    --------
    >>> drug = cd.datasets.sciplex2()
    >>> cd.CellDiT.setup_anndata(
    ...     drug, perturbation_key="perturbation", dose_key="dose_um", size_factor_key="total_umis"
    ... )
    >>> curves = cd.tl.dose_response(drug)
    >>> bool(curves["lfsr"].iloc[0] < 0.05)
    True
    """
    target = writable(adata, key_added)
    check_whole(min_cells, "min_cells", 2)
    check_seed(seed)
    cells, fields = measured_cells(adata)
    if cells.doses is None:
        raise InputError(
            "adata was set up without dose_key, so doses are not known; pass dose_key='COLUMN' to "
            "CellDiT.setup_anndata."
        )
    table = ConditionTable.from_cells(cells, fields.perturbation_sep)
    singles = sorted({c.parts[0] for c in table.conditions if len(c.parts) == 1})
    labels = singles if perturbations is None else text_list(perturbations, "perturbations")
    check_known(labels, singles, "single perturbation in adata")
    series = _series(table, labels, min_cells)
    if not series:
        raise InputError(
            f"No perturbation has {MIN_DOSES} doses above 0 with at least {min_cells} cells each "
            "and as many controls in one context, and fewer tell no EC50; lower min_cells, or set "
            "up adata with fewer covariate_keys; two doses are compared by cd.tl.effects."
        )
    if programs is not None:
        cells = _of_programs(cells, programs)
    curves, points = [], []
    with threads():
        rates = mean_rates(cells, table.index, {r for s in series.values() for r in s})
        for (label, (context, time)), (control, *rows) in series.items():
            said: dict[str, object] = {"perturbation": label, "context": context}
            said |= {} if time is None else {"time": time}
            doses = np.array([dose for row in rows for dose in table.conditions[row].doses or ()])
            curve, point = _fit(rates, control, rows, doses, seed)
            curves.append(pd.DataFrame({**said, "gene": list(cells.genes), **curve}))
            genes = np.tile(np.array(cells.genes, dtype=object), len(doses))
            points.append(pd.DataFrame({**said, "gene": genes, **point}))
    found = with_symbols(pd.concat(curves), adata.var)
    every = with_symbols(pd.concat(points, ignore_index=True), adata.var)
    found = found.sort_values("lfsr", kind="stable", ignore_index=True)
    target.uns[key_added] = text_rows(found)
    target.uns[f"{key_added}_points"] = text_rows(every)
    return found


def _series(
    table: ConditionTable, labels: Sequence[str], min_cells: int
) -> dict[tuple[str, StratumKey], list[int]]:
    """Of each perturbation and stratum the control condition, then those of rising doses."""
    strata, counts = Strata.of_table(table), table.counts
    found: dict[tuple[str, StratumKey], list[tuple[float, int]]] = {}
    for row, condition in enumerate(table.conditions):
        single = len(condition.parts) == 1 and condition.parts[0] in labels
        if single and condition.doses and condition.doses[0] > 0 and counts[row] >= min_cells:
            key = condition.parts[0], condition.stratum
            found.setdefault(key, []).append((condition.doses[0], row))
    return {
        key: [strata[key[1]].row, *(row for _, row in sorted(rows))]
        for key, rows in found.items()
        if len(rows) >= MIN_DOSES
        and strata[key[1]].is_identified
        and counts[strata[key[1]].row] >= min_cells
    }


def _of_programs(cells: Cells, programs: Mapping[str, Sequence[str]]) -> Cells:
    """The same cells with the summed counts of gene sets in place of genes."""
    check_kind(programs, Mapping, "programs", "gene sets by name, {'name': ['GENE', ...]}")
    column = {gene: g for g, gene in enumerate(cells.genes)}
    rows: list[int] = []
    columns: list[int] = []
    for j, (name, genes) in enumerate(programs.items()):
        own = list(dict.fromkeys(text_list(genes, f"programs[{name!r}]")))
        check_known(own, column, f"gene of the program {name!r}")
        rows += [column[gene] for gene in own]
        columns += [j] * len(own)
    if not rows:
        raise InputError("programs names no gene; leave it out for curves of single genes.")
    member = sparse.csr_matrix(
        (np.ones(len(rows), np.float32), (rows, columns)), shape=(cells.n_genes, len(programs))
    )
    return replace(cells, counts=sparse.csr_matrix(cells.counts @ member), genes=tuple(programs))


def _fit(
    rates: Mapping[int, MeanRates], control: int, rows: Sequence[int], doses: np.ndarray, seed: int
) -> tuple[dict[str, object], dict[str, object]]:
    """Columns of the curves, a row for each gene, and of the points, for each dose and gene."""
    before, log_2 = rates[control], np.log(2)
    change_DG = np.log([rates[row].mean_G for row in rows]) - np.log(before.mean_G)
    variance_DG = np.array([rates[row].log_variance_G for row in rows])
    rng = np.random.default_rng(seed)
    fit = fit_curves(doses, change_DG, variance_DG, before.log_variance_G, rng)
    curves = {
        "ec50": fit.ec50_3G[1],
        "ec50_low": fit.ec50_3G[0],
        "ec50_high": fit.ec50_3G[2],
        "in_range": fit.in_range_G,
        "slope": fit.slope_G,
        "log2_fold_change": fit.largest_G / log_2,
        "log2_sd": fit.largest_sd_G / log_2,
        "lfsr": fit.lfsr_G,
    }
    low_DG, fitted_DG, high_DG = fit.fitted_3DG
    points = {
        "dose": np.repeat(doses, change_DG.shape[1]),
        "log_fold_change": change_DG.ravel(),
        "sd": np.sqrt(variance_DG + before.log_variance_G).ravel(),
        "fitted": fitted_DG.ravel(),
        "low": low_DG.ravel(),
        "high": high_DG.ravel(),
    }
    return curves, points
