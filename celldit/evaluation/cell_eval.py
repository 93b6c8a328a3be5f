"""Differential expression as cell-eval tests and scores it."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from celldit.errors import InputError
from celldit.evaluation import metrics as m
from celldit.evaluation.condition import Condition
from celldit.evaluation.metrics import DifferentialExpression

__all__ = ["BY_ITS_TESTS", "NAMES", "cell_eval_scores", "check_installed"]

#: Measures that cell-eval computes, by celldit's name, and what cell-eval calls them.
NAMES = {
    "de_overlap": "overlap_at_N",
    "de_precision": "precision_at_N",
    "de_recall": "de_sig_genes_recall",
    "de_direction": "de_direction_match",
    "de_spearman": "de_spearman_lfc_sig",
    "de_pr_auc": "pr_auc",
    "de_roc_auc": "roc_auc",
}

#: Measures that it does not know, but that rest on tests of genes: celldit computes them from its.
BY_ITS_TESTS = ("lfc_error", "pearson_de", "cosine_de")

_LABEL, _CONTROL, _PERTURBED = "perturbation", "control", "perturbed"


def check_installed() -> None:
    """Refuse, before any work, to compute with a package that is missing.

    Raises
    ------
    InputError
        If cell-eval cannot be imported.
    """
    try:
        import cell_eval  # noqa: F401
    except ImportError as error:
        raise InputError(
            "The engine 'cell-eval' needs the package of that name; install it with "
            "pip install 'celldit[eval]', or leave engine='celldit', which gives the same values."
        ) from error


def cell_eval_scores(condition: Condition, names: Sequence[str]) -> dict[str, float]:
    """Let cell-eval test every gene of a condition, and score the prediction by it.

    Both sides are compared with the same measured control cells. Where no gene is truly
    differential there is no value, as in :mod:`celldit.evaluation.metrics`; cell-eval writes 0 for
    some measures and nothing for others.

    Parameters
    ----------
    condition
        The cells.
    names
        Of :data:`NAMES` and :data:`BY_ITS_TESTS`.

    Returns
    -------
    dict
        Value of each.

    Raises
    ------
    InputError
        If cell-eval refuses the cells, as it does log expression below zero.

    Notes
    -----
    Adduri et al. (2025), https://github.com/ArcInstitute/cell-eval; genes are tested by its
    companion pdex.
    """
    row, predicted, true = _run(condition)
    genes = true.significant()
    values = dict.fromkeys(names, float("nan"))
    if genes.size == 0:
        return values
    u_G, v_G = condition.predicted_shift, condition.true_shift
    for name in names:
        if name == "lfc_error":
            values[name] = m.lfc_error(predicted, true)
        elif name == "pearson_de":
            values[name] = m.pearson_shift(u_G, v_G, genes)
        elif name == "cosine_de":
            values[name] = m.cosine_shift(u_G, v_G, genes)
        elif row.get(NAMES[name]) is not None:
            values[name] = float(row[NAMES[name]])
    return values


def _run(
    condition: Condition,
) -> tuple[dict[str, Any], DifferentialExpression, DifferentialExpression]:
    """Its scores by its names, and its tests of predicted and true cells."""
    from cell_eval import MetricsEvaluator

    with (
        tempfile.TemporaryDirectory(prefix="celldit-") as folder,
        warnings.catch_warnings(),
        # A progress bar for every condition would bury the table.
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            evaluator = MetricsEvaluator(
                adata_pred=_beside_control(condition.tested_NG, condition.control_KG),
                adata_real=_beside_control(condition.true_MG, condition.control_KG),
                control_pert=_CONTROL,
                pert_col=_LABEL,
                num_threads=1,
                outdir=str(Path(folder) / "tests"),
                # Left to guess, it would take whole numbers for counts and normalise them.
                allow_discrete=True,
                pdex_kwargs={"is_log1p": True},
            )
        except ValueError as error:
            raise InputError(
                f"cell-eval refuses these cells ({error}); leave engine='celldit', or predict "
                "counts."
            ) from error
        # Of one condition there is no correlation over conditions.
        table, _ = evaluator.compute(
            profile="de", skip_metrics=["de_spearman_sig"], write_csv=False, break_on_error=True
        )
    tests = evaluator.de_comparison
    return table.row(0, named=True), _tests(tests.pred.data), _tests(tests.real.data)


def _beside_control(perturbed_NG: np.ndarray, control_KG: np.ndarray) -> ad.AnnData:
    n, k = len(perturbed_NG), len(control_KG)
    obs = pd.DataFrame({_LABEL: np.repeat([_PERTURBED, _CONTROL], [n, k])})
    obs.index = obs.index.astype(str)
    # Positions stand for genes, so that tests come back in the same order.
    var = pd.DataFrame(index=[str(g) for g in range(perturbed_NG.shape[1])])
    return ad.AnnData(np.concatenate([perturbed_NG, control_KG]), obs=obs, var=var)


def _tests(table: Any) -> DifferentialExpression:
    """Read a table of tests, one row a gene, into the order of the genes."""
    order = np.argsort([int(gene) for gene in table["feature"].to_list()])
    changes, p_values, q_values = (
        table[name].to_numpy().astype(np.float64)[order]
        for name in ("log2_fold_change", "p_value", "fdr")
    )
    # A gene that neither side shows has not changed; cell-eval divides 0 by 0.
    return DifferentialExpression(np.nan_to_num(changes, nan=0.0), p_values, q_values)
