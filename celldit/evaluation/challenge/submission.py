"""The file that the challenge takes: raw counts, the panel's genes in order, one column of
labels."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.arguments import text_list
from celldit.data.checks import check_anndata
from celldit.data.counts import read_counts
from celldit.data.genes import match_genes
from celldit.data.labels.columns import text_column
from celldit.errors import InputError, examples
from celldit.evaluation.challenge.panel import COUNT_LAYERS, MIN_CELLS

LABEL_COLUMN = "target"
CONTROL_LABEL = "non-targeting"
#: More counts in a cell are refused by the scorer.
MOST_COUNTS = 1_000_000


def submission(
    predicted: ad.AnnData,
    genes: Sequence[str],
    control: ad.AnnData,
    *,
    perturbation_key: str = "perturbation",
    control_label: str | Sequence[str] = "control",
    perturbations: Sequence[str] | None = None,
) -> ad.AnnData:
    """Make the challenge's AnnData of a prediction and measured control cells, and check it.

    Counts are those of ``layers["counts"]``, or of ``X``. ``obs["target"]`` is the label of each
    cell, control cells, of one label or several, being ``"non-targeting"``; `genes` are those of
    the panel, in its order, and `perturbations` those that it asks for, None for all that were
    predicted. InputError as :func:`check_submission`, or if genes or counts are missing;
    UnknownNameError if a column does not exist.
    """
    for adata, name in ((predicted, "predicted"), (control, "control")):
        check_anndata(adata, name)
    genes = [str(gene) for gene in genes]
    labels = np.asarray(text_column(predicted, perturbation_key, "perturbation_key"), dtype=object)
    controls = text_list(control_label, "control_label")
    rows = np.flatnonzero(~np.isin(labels.astype(str), controls))
    base = np.asarray(text_column(control, perturbation_key, "perturbation_key"), dtype=object)
    base_rows = np.flatnonzero(np.isin(base.astype(str), controls))
    if base_rows.size == 0:
        raise InputError(
            f"No cell of control is labelled {' or '.join(map(repr, controls))} in "
            f"obs[{perturbation_key!r}], and the file needs control cells; pass measured ones, or "
            "name their label."
        )
    layer = next((name for name in COUNT_LAYERS if name in predicted.layers), None)
    counts = sparse.vstack(
        [
            read_counts(predicted, layer, match_genes(predicted.var_names, genes))[rows],
            read_counts(control, None, match_genes(control.var_names, genes))[base_rows],
        ],
        format="csr",
    )
    written = [*labels[rows], *[CONTROL_LABEL] * len(base_rows)]
    result = ad.AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame(
            {LABEL_COLUMN: pd.Categorical(written)}, index=[f"cell{i}" for i in range(len(written))]
        ),
        var=pd.DataFrame(index=pd.Index(genes, dtype=object)),
    )
    check_submission(result, genes, perturbations)
    return result


def check_submission(
    adata: ad.AnnData, genes: Sequence[str], perturbations: Sequence[str] | None = None
) -> None:
    """Refuse a file that the scorer would refuse, or misread, and say what is wrong.

    Order of genes, values that are no counts, cells with too many or no counts, labels that are
    missing, unknown or too rare.
    """
    if [str(g) for g in adata.var_names] != [str(g) for g in genes]:
        raise InputError(
            "The genes of the submission are not those of the panel in its order; make it with "
            "celldit submission, which aligns them."
        )
    if LABEL_COLUMN not in adata.obs:
        raise InputError(f"The submission has no obs[{LABEL_COLUMN!r}], the label of each cell.")
    values = adata.X.data if sparse.issparse(adata.X) else np.asarray(adata.X).ravel()
    if values.size and not (
        np.isfinite(values).all() and values.min() >= 0 and (values == np.rint(values)).all()
    ):
        raise InputError(
            "The submission does not hold raw counts: values are missing, below 0 or fractional; "
            "write the counts that were drawn, not expected ones or logarithms."
        )
    totals = np.asarray(adata.X.sum(axis=1)).ravel()
    if (totals > MOST_COUNTS).any() or (totals == 0).any():
        raise InputError(
            f"{int((totals > MOST_COUNTS).sum())} cells have more than {MOST_COUNTS:,} counts and "
            f"{int((totals == 0).sum())} have none; leave them out or draw them again."
        )
    sizes = adata.obs[LABEL_COLUMN].astype(str).value_counts()
    lacking = sorted(set(map(str, perturbations or ())) - set(sizes.index))
    extra = sorted(set(sizes.index) - {*map(str, perturbations or sizes.index), CONTROL_LABEL})
    few = [f"{label} ({n})" for label, n in sizes.items() if n < MIN_CELLS]
    if lacking or extra or few or CONTROL_LABEL not in sizes:
        said = [
            f"{what}: {examples(names)}"
            for what, names in (
                ("missing perturbations", lacking),
                ("perturbations that are not asked for", extra),
                (f"fewer than {MIN_CELLS} cells", few),
                ("missing label", [] if CONTROL_LABEL in sizes else [CONTROL_LABEL]),
            )
            if names
        ]
        raise InputError(
            f"The labels of the submission are not those asked for; {'; '.join(said)}."
        )
