"""Several methods side by side, with the ceiling, on the same conditions."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_known, check_seed, check_whole
from celldit.data.checks import check_anndata
from celldit.data.fields import is_set_up
from celldit.errors import InputError, examples, outside
from celldit.evaluation.baselines.prediction import SIMPLE, predict_all
from celldit.evaluation.catalogue import CEILING, METRICS, without_counts
from celldit.evaluation.ceiling import score, score_halves
from celldit.evaluation.challenge.scores import compare_panels
from celldit.evaluation.expression import align_genes, conditions_of, truth_fields
from celldit.evaluation.task import Task


def compare(
    predictions: ad.AnnData | Mapping[str, ad.AnnData],
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    metrics: Sequence[str] | str | None = ("pearson", "nmse", "energy"),
    baselines: bool | ad.AnnData = False,
    baseline: str | None = None,
    equal_cells: bool = False,
    n_repeats: int = 5,
    min_cells: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Score several predictions on the same conditions, the ceiling beside them.

    Parameters
    ----------
    predictions
        Predictions by the name of the method, each as in :func:`celldit.evaluation.evaluate`; one
        alone is called ``"prediction"``.
    truth, control, min_cells, seed
        As in :func:`celldit.evaluation.evaluate`.
    metrics
        As there, or ``"vcc2026"`` for the scores of the six measures of Arc's challenge, their mean
        ``composite``, and its 90% interval over perturbations.
    baselines
        Whether to add the simple predictors of :mod:`celldit.evaluation.baselines`, fitted on the
        cells of ``control`` (which may be the whole screen) whose conditions are not predicted; or
        the cells to fit them on. Where no other condition is among them, those of the same that are
        not in `truth`. ``attrs["skipped"]`` says which know nothing of what is asked.
    baseline
        The method that scores 0; adds a column ``<metric>_score`` for each metric. Scores compare
        like with like: in each of the splits, every method is thinned to the number of cells of the
        replicate, and all are measured against the same other half.
    equal_cells
        Whether the methods' rows, too, are measured on the halves with equal numbers of cells. By
        default they are what :func:`celldit.evaluation.evaluate` gives, with all cells: a good
        method may then pass the ceiling row, which has half the cells on either side.
    n_repeats
        Random splits for ceiling and scores.

    Returns
    -------
    pandas.DataFrame
        A row for each method and one for the ceiling (one half of the cells against the other), a
        column for each metric: the mean over the conditions for which every row has a value, so
        that all rows average the same conditions. ``attrs["n_conditions"]`` says how many.

    Raises
    ------
    InputError
        As :func:`celldit.evaluation.evaluate`, or if there is nothing to compare.
    UnknownNameError
        If a metric, a column, a predicted perturbation or the baseline is not known.

    Warns
    -----
    UserWarning
        If conditions are left out because they lack a score in some row.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.compare({"celldit": predicted}, measured, measured)
    >>> list(table.index), list(table.columns)
    (['celldit', 'ceiling'], ['pearson', 'nmse', 'energy'])
    """
    alone = isinstance(predictions, ad.AnnData)
    if isinstance(predictions, ad.AnnData):
        predictions = {"prediction": predictions}
    of_panel = isinstance(metrics, str) and metrics == "vcc2026"
    names = without_counts(None if of_panel else metrics)
    _check(predictions)
    check_whole(n_repeats, "n_repeats")
    check_whole(min_cells, "min_cells", 0)
    check_seed(seed)
    _check_baseline(baseline, [*predictions, *(SIMPLE if baselines is not False else ())])
    called = {m: "predicted" if alone else f"predictions[{m!r}]" for m in predictions}
    check_anndata(truth, "truth")
    # Genes are matched here, once, and not for every method again.
    genes = truth.var_names
    predictions = {m: align_genes(adata, genes, called[m]) for m, adata in predictions.items()}
    control = None if control is None else align_genes(control, genes, "control")
    skipped: dict[str, str] = {}
    if baselines is not False:
        predictions, skipped = with_baselines(
            predictions, truth, control, baselines, called=called, seed=seed
        )
        # Some know nothing of what is asked, and are not there.
        _check_baseline(baseline, predictions)
    if of_panel:
        table = compare_panels(
            predictions, truth, control, baseline=baseline, called=called, seed=seed
        )
        table.attrs["skipped"] = skipped
        return table
    task = Task.prepare(truth, control, seed=seed)
    cells = {m: task.read(adata, called.get(m, m)) for m, adata in predictions.items()}
    on_halves = cells if equal_cells or baseline is not None else {}
    halved = score_halves(task, on_halves, names, n_repeats, min_cells, seed)
    tables = dict(halved)
    if not equal_cells:
        tables = {m: task.score(x, names, min_cells=min_cells) for m, x in cells.items()}
        tables[CEILING] = halved[CEILING]
    wide = averages(tables, names)
    _warn_left_out(tables)
    if baseline is not None:
        means = averages(halved, names)
        for name in (name for name in names if name in METRICS):
            base, top = means.loc[baseline, name], means.loc[CEILING, name]
            wide[f"{name}_score"] = [score(means.loc[m, name], base, top, name) for m in wide.index]
    wide.attrs["skipped"] = skipped
    every = [t.assign(method=method).to_dict("records") for method, t in tables.items()]
    # Records, since pandas compares the attrs of tables that are put together.
    wide.attrs["by_condition"] = [record for records in every for record in records]
    return wide


def with_baselines(
    predictions: Mapping[str, ad.AnnData],
    truth: ad.AnnData,
    control: ad.AnnData | None,
    train: bool | ad.AnnData,
    *,
    called: Mapping[str, str] | None = None,
    seed: int = 0,
) -> tuple[dict[str, ad.AnnData], dict[str, str]]:
    """Put the simple predictors beside predictions, which come first.

    They learn from the other conditions of `train`, or where it is True of `control`; where there
    are none, from cells of the same conditions that `truth` does not hold. Those that know nothing
    of what is asked are in the second dictionary, with the reason. `called` is how messages call
    each prediction. InputError if names collide, or nothing is left to learn from.
    """
    taken = sorted({*predictions} & {*SIMPLE})
    if taken:
        raise InputError(
            f"A prediction is called {taken[0]!r}, as one of the baselines; give it another name."
        )
    base = truth if control is None else control
    source = base
    if not isinstance(train, bool):
        source = align_genes(train, truth.var_names, "baselines")
    fields = truth_fields(truth, control)
    names = called or {}
    requested = {
        (p, c)
        for method, adata in predictions.items()
        for p, c in conditions_of(adata, fields, names.get(method, "predicted"))
        if p != fields.control
    }
    own = None if is_set_up(source) else fields
    names_of_truth = set(truth.obs_names.astype(str))
    found, skipped = predict_all(
        source, base, requested, fields=own, truth=names_of_truth, seed=seed
    )
    return {**predictions, **found}, skipped


def _check_baseline(baseline: str | None, known: Collection[str]) -> None:
    if baseline is not None:
        check_known([baseline], known, "baseline among the predictions")


def _check(predictions: Mapping[str, ad.AnnData]) -> None:
    if not isinstance(predictions, Mapping):
        raise InputError(
            "predictions must hold predictions by the name of their method, as "
            f"{{'celldit': predicted}}, not {type(predictions).__name__}."
        )
    if not predictions or CEILING in predictions:
        raise InputError(
            f"compare needs at least one prediction, under a name other than {CEILING!r}, which is "
            "the row of the split halves."
        )


def averages(tables: Mapping[str, pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    """Mean of each metric over the conditions that every table has a value for."""
    wide = pd.DataFrame(index=pd.Index(list(tables), name="method"), columns=list(names))
    n_conditions = {}
    for name in names:
        columns = {
            method: table[table["metric"] == name].set_index(["perturbation", "context"])["value"]
            for method, table in tables.items()
        }
        values = pd.DataFrame(columns).dropna(axis=0)
        wide[name] = values.mean(axis=0).reindex(wide.index).astype(np.float64)
        n_conditions[name] = len(values)
    wide.attrs["n_conditions"] = n_conditions
    return wide


def _warn_left_out(tables: Mapping[str, pd.DataFrame]) -> None:
    reasons = {
        f"{condition} ({method}: {why})"
        for method, table in tables.items()
        for condition, why in table.attrs["not_scored"].items()
    }
    if reasons:
        warnings.warn(
            f"{len(reasons)} scores are missing, and their conditions left out of every row: "
            f"{examples(sorted(reasons), 8)}.",
            UserWarning,
            stacklevel=outside(),
        )
