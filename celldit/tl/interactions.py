"""Whether two perturbations together do more than the sum of both."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from celldit.analysis.adaptive_shrinkage import shrink
from celldit.analysis.interactions import Group, Kind, PairFit, fit_pairs
from celldit.arguments import check_seed, check_whole
from celldit.compute import threads
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.strata import Strata
from celldit.errors import InputError
from celldit.tl.cells import measured_cells, text_rows, with_symbols, writable


def interactions(
    adata: ad.AnnData,
    *,
    min_cells: int = 20,
    max_lfsr: float = 0.05,
    seed: int = 0,
    key_added: str = "interactions",
) -> pd.DataFrame:
    """Compare every measured pair of perturbations with the sum of both, gene by gene.

    All is measured, nothing predicted, so the doubt is that of the cells: of the pair, of both
    single perturbations and of the controls (:mod:`celldit.analysis.interactions`). The sum is that
    of log fold changes, as in the study of Norman et al. (2019); deviations are shrunken with the
    local false sign rates of Stephens (2017).

    Parameters
    ----------
    adata
        Measured cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    min_cells
        Least cells of a pair, of both singles and of the controls.
    max_lfsr
        Local false sign rate below which a gene counts as deviating.
    seed
        Of the folds of the jackknife.
    key_added
        Key in ``uns``.

    Returns
    -------
    pandas.DataFrame
        One row for each pair and context, also in ``uns[key_added]``: ``perturbation``,
        ``context`` (and ``time``); ``first``, ``second``, the parts; ``kind``; ``coefficient_1``,
        ``coefficient_2`` with ``sd_1``, ``sd_2``, of the fit of the pair's effect to both;
        ``total`` and ``total_sd``, the multiple of the sum that fits the pair best, above 1 where
        it does more; ``fit``, the
        share of the pair's squared effect that the fit explains, free of noise, and ``fit_sd``;
        ``dominant``, in epistasis the part that decides; ``n_genes``, how many deviate. The
        kinds, beyond two and a half standard deviations each: *neomorphic*, the fit explains less
        than half; *epistasis*, one part masks the other; *synergy* and *buffering*, the total is
        above or below 1; else *additive*, or *unclear* where the cells do not say.

        ``uns[key_added + "_genes"]`` holds one row for each pair and gene: ``measured`` and
        ``additive`` log2 fold change, ``deviation`` between them with ``sd``, ``z``, ``shrunken``
        (posterior mean), and ``lfsr``.

    Raises
    ------
    InputError
        If no pair was measured beside both of its parts and controls.

    Examples
    --------
    >>> norman = cd.datasets.norman()
    >>> cd.CellDiT.setup_anndata(
    ...     norman, perturbation_key="perturbation", size_factor_key="total_umis"
    ... )
    >>> pairs = cd.tl.interactions(norman)
    >>> sorted(pairs["perturbation"])[0]
    'KLF1+MAP2K6'
    >>> genes = norman.uns["interactions_genes"]
    """
    target = writable(adata, key_added)
    check_whole(min_cells, "min_cells", 2)
    check_seed(seed)
    cells, fields = measured_cells(adata)
    table = ConditionTable.from_cells(cells, fields.perturbation_sep)
    found = _measured_pairs(table, min_cells)
    if not found:
        raise InputError(
            f"No pair such as 'A{fields.perturbation_sep}B' has at least {min_cells} cells beside "
            "as many of both of its parts and of controls in the same context; lower min_cells, or "
            "pass perturbation_sep='...', what joins the parts of a label, to "
            "CellDiT.setup_anndata."
        )
    with threads():
        rng = np.random.default_rng(seed)
        fits = fit_pairs(cells, table.index, list(found.values()), rng)
    rows, genes = [], []
    for condition, fit in zip(found, fits, strict=True):
        said = {
            "perturbation": condition.label(fields.perturbation_sep, fields.control),
            "context": condition.context,
            **({} if condition.time is None else {"time": condition.time}),
        }
        of_genes = _gene_table(fit, cells.genes)
        n_genes = int((of_genes["lfsr"] < max_lfsr).sum())
        rows.append({**said, **_pair_row(condition, fit), "n_genes": n_genes})
        genes.append(pd.DataFrame({**said, **of_genes}))
    pairs, every = pd.DataFrame(rows), with_symbols(pd.concat(genes, ignore_index=True), adata.var)
    target.uns[key_added] = text_rows(pairs)
    target.uns[f"{key_added}_genes"] = text_rows(every)
    return pairs


def _measured_pairs(table: ConditionTable, min_cells: int) -> dict[Condition, Group]:
    """Pairs with enough cells of all four groups, at the same doses."""
    strata, counts = Strata.of_table(table), table.counts
    index = {condition: row for row, condition in enumerate(table.conditions)}
    found = {}
    for condition, row in index.items():
        stratum = strata[condition.stratum]
        parts = [index[c] for c in map(condition.only, zip(condition.parts)) if c in index]
        if len(condition.parts) != 2 or len(parts) != 2 or not stratum.is_identified:
            continue
        group = stratum.row, parts[0], parts[1], row
        if counts[list(group)].min() >= min_cells:
            found[condition] = group
    return found


def _pair_row(condition: Condition, fit: PairFit) -> dict[str, object]:
    first, second = condition.parts
    stronger = first if fit.coefficients[0] > fit.coefficients[1] else second
    return {
        "first": first,
        "second": second,
        "kind": str(fit.kind),
        "coefficient_1": fit.coefficients[0],
        "sd_1": fit.sds[0],
        "coefficient_2": fit.coefficients[1],
        "sd_2": fit.sds[1],
        "total": fit.total,
        "total_sd": fit.total_sd,
        "fit": fit.fit,
        "fit_sd": fit.fit_sd,
        "dominant": stronger if fit.kind is Kind.EPISTASIS else "",
    }


def _gene_table(fit: PairFit, genes: tuple[str, ...]) -> pd.DataFrame:
    shrunken, to_log2 = shrink(fit.deviation_G, fit.error_G), 1 / np.log(2)
    return pd.DataFrame(
        {
            "gene": list(genes),
            "measured": fit.effects_3G[2] * to_log2,
            "additive": (fit.effects_3G[0] + fit.effects_3G[1]) * to_log2,
            "deviation": fit.deviation_G * to_log2,
            "sd": fit.error_G * to_log2,
            "z": fit.deviation_G / fit.error_G,
            "shrunken": shrunken.mean_G * to_log2,
            "lfsr": shrunken.lfsr_G,
        }
    )
