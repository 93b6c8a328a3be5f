"""Score a prediction against measured cells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import anndata as ad
import pandas as pd

from celldit.arguments import check_known, check_seed, check_whole
from celldit.errors import InputError, examples, outside
from celldit.evaluation.catalogue import resolve
from celldit.evaluation.challenge.panel import MeasuredCells
from celldit.evaluation.challenge.scores import COMPOSITE, Engine, check_engine, score_panels
from celldit.evaluation.task import Task


def evaluate(
    predicted: ad.AnnData,
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    metrics: Sequence[str] | str | None = None,
    preset: Literal["vcc2026"] | None = None,
    engine: Engine = "cell-eval2",
    min_cells: int = 10,
    seed: int = 0,
    counts_layer: str | None = None,
) -> pd.DataFrame:
    """Score predicted cells against measured ones, condition by condition.

    A condition is a perturbation in a context (the covariate values of ``setup_anndata``). Like is
    compared with like: counts sampled from the prediction, and measured counts, both as
    ``log(1 + 10,000 counts / size factor)``. Shifts are taken from the measured control cells of
    the same context on both sides. Distances between samples are taken in 50 principal components,
    fitted on the measured cells only. Doses and times are not told apart: subset all three AnnData
    to score one.

    Parameters
    ----------
    predicted
        What :meth:`celldit.CellDiT.predict` or a baseline writes: ``layers["counts"]`` with
        ``obs["size_factor"]``, or without that layer log expression in ``X``; the truth's columns
        of perturbation and covariates in ``obs``.
    truth
        Measured cells, raw counts, set up with :meth:`celldit.CellDiT.setup_anndata`. Its control
        cells, if it has any, are not scored.
    control
        Measured control cells, raw counts. Cells with another label are left out, so the whole data
        set will do. None for the control cells of the truth, by the label of its setup.
    metrics
        Names from :data:`celldit.evaluation.METRICS`; None for the default table, which leaves out
        what is slow (``classifier_auc``, ``w2``) or says much the same; ``"all"`` for everything.
        The table also holds ``n_predicted`` and ``n_measured``, the numbers of cells.
    min_cells
        A condition with fewer predicted, measured or control cells is not scored; ten with a
        preset.
    preset
        ``"vcc2026"`` for the six measures of Arc's challenge of 2026 in place of ``metrics``, each
        placed between the mean response of the measured panel (0) and a replicate (1). They are
        of counts, each cell scaled to its own sum, and need two perturbations in a context.
    engine
        Who computes the preset: Arc's own package (``pip install 'celldit[eval]'``), or
        ``"celldit"``, which gives the same values to 1e-6 and takes a twentieth of the time.
    seed
        Of everything random.
    counts_layer
        Layer of `truth` and `control` with raw counts; None for what the setup of each says.

    Returns
    -------
    pandas.DataFrame
        Columns ``perturbation``, ``context``, ``metric``, ``value``, one row for each condition and
        metric. A condition that is predicted or measured but not scored keeps its rows, with value
        NaN; ``attrs["not_scored"]`` says why, and so does a warning. A measure that is undefined
        for a condition (nothing is differentially expressed, no second perturbation in the context)
        is NaN without a warning. Beside measures of called genes stand the numbers of them.

        With ``preset``: ``context``, ``measure``, ``value``, ``mean_response``, ``replicate``,
        ``score``, and for each context the measure ``composite``, the mean of its six scores.

    Raises
    ------
    InputError
        If genes differ, values are missing, normalisation does not match, a context has no control
        cells, the truth was not set up, or cell-eval2 is asked for and not installed.
    UnknownNameError
        If a metric, a preset, an engine, a column, or a predicted perturbation is not known.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.evaluate(predicted, measured, measured, metrics=["pearson", "nmse"])
    >>> list(table.columns)
    ['perturbation', 'context', 'metric', 'value']
    """
    check_whole(min_cells, "min_cells", 0)
    check_seed(seed)
    if preset is None:
        names = resolve(metrics)
        task = Task.prepare(truth, control, seed=seed, counts_layer=counts_layer)
        table = task.score(task.read(predicted), names, min_cells=min_cells)
        warn_not_scored(table)
        return table
    check_known([preset], ["vcc2026"], "preset")
    if metrics is not None:
        raise InputError("A preset has measures of its own; give preset= or metrics=, not both.")
    check_engine(engine)
    panels, left_out = MeasuredCells.read(truth, control, counts_layer).panels(predicted)
    table = score_panels(panels, engine=engine, seed=seed)
    table.attrs["not_scored"] = left_out
    warn_not_scored(table)
    lacking = table[table["score"].isna() & (table["measure"] != COMPOSITE)]
    if len(lacking):
        named = [f"{m} in {c}" if c else m for c, m in lacking[["context", "measure"]].to_numpy()]
        warnings.warn(
            "A replicate of the measurement is no better than the mean response in "
            f"{examples(named, 8)}, so there is no score, nor a composite of these contexts.",
            UserWarning,
            stacklevel=outside(),
        )
    return table


def warn_not_scored(table: pd.DataFrame) -> None:
    """Warn of the conditions that have no score, with the reason of each."""
    reasons = table.attrs.get("not_scored", {})
    if reasons:
        listed = examples((f"{name}: {why}" for name, why in reasons.items()), 8)
        warnings.warn(
            f"{len(reasons)} conditions are not scored (value NaN): {listed}.",
            UserWarning,
            stacklevel=outside(),
        )
