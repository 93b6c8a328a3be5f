"""Writing a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import anndata as ad
import pandas as pd

import celldit
from celldit.arguments import check_known, check_whole
from celldit.data.checks import check_anndata
from celldit.data.fields import setup_anndata
from celldit.data.labels.columns import label_column
from celldit.data.labels.labels import canonical_array
from celldit.errors import InputError
from celldit.evaluation.compare import with_baselines
from celldit.evaluation.expression import align_genes, truth_fields
from celldit.io.files import check_page, refuse_existing
from celldit.io.replacing import made_whole
from celldit.report.numbers import NO_CHANGE, Numbers, measure
from celldit.report.page import render
from celldit.report.pictures import (
    calibration_picture,
    condition_pictures,
    effect_pictures,
    overview_picture,
)


def report(
    predicted: ad.AnnData,
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    path: str | os.PathLike[str] = "report.html",
    *,
    name: str = "prediction",
    title: str | None = None,
    baselines: Mapping[str, ad.AnnData] | bool | ad.AnnData | None = None,
    effects: pd.DataFrame | None = None,
    metrics: Sequence[str] | str | None = None,
    n_perturbations: int = 6,
    basis: Literal["effect", "pca", "umap"] = "effect",
    n_repeats: int = 3,
    n_resamples: int = 50,
    min_cells: int = 10,
    overwrite: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Write a report on a prediction: one HTML file, readable without a network.

    It opens with one sentence and one picture: how much of the way from no change to a replicate
    the prediction closes, and for what it is worse than no change. Beside ``report.html``, the same
    numbers are written as ``report.csv`` (tidy, a row for every number) and ``report.json``.

    Parameters
    ----------
    predicted, truth, control, metrics, min_cells, seed
        As in :func:`celldit.evaluation.evaluate`. Conditions that were measured but not predicted
        are listed and nothing more.
    path
        The HTML file; must end in ``.html``.
    name
        What the prediction is called.
    title
        Of the page; None makes one of the name.
    baselines
        Other predictions of the same conditions by name; or as in :func:`celldit.tl.compare`, True
        for the simple predictors fitted on the cells of ``control``, or the cells to fit them on.
        ``"no change"``, the control cells themselves, and the ceiling are always there.
    effects
        What :func:`celldit.tl.effects` returns; adds the calibration of its intervals.
    n_perturbations
        Perturbations to draw, those with the largest measured effect.
    basis
        Plane that the cells are drawn in: along the measured effect, or the first two principal
        components, or a UMAP.
    n_repeats
        Random halvings for the ceiling.
    n_resamples
        Random halves for the intervals of scores; 0 for no intervals.
    overwrite
        Whether to replace files that exist.

    Returns
    -------
    pandas.DataFrame
        What the CSV holds: ``method``, ``perturbation``, ``context``, ``metric``, ``value``,
        ``low``, ``high``; ``attrs["files"]`` names the files.

    Raises
    ------
    InputError
        As :func:`celldit.evaluation.evaluate`, if nothing can be scored, or if ``effects`` cannot
        be used.
    UnknownNameError
        If a metric, a column or a predicted perturbation is not known.
    FileError
        If files exist already or cannot be written.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.report(predicted, measured, measured, "report.html")  # doctest: +SKIP
    """
    target = check_page(path)
    files = [target, target.with_suffix(".csv"), target.with_suffix(".json")]
    refuse_existing(files, overwrite=overwrite, how="overwrite=True")
    check_known([basis], ["effect", "pca", "umap"], "basis")
    check_whole(n_perturbations, "n_perturbations", 0)
    check_whole(n_repeats, "n_repeats")
    check_whole(min_cells, "min_cells", 0)
    check_whole(n_resamples, "n_resamples", 0)
    if n_resamples == 1:
        raise InputError("n_resamples=1 gives no interval; use 0 for none, or 2 and more.")
    check_anndata(truth, "truth")
    # Genes are matched here, once; scores and pictures then find them in one order.
    predicted = align_genes(predicted, truth.var_names, "predicted")
    if control is not None:
        control = align_genes(control, truth.var_names, "control")
    numbers = measure(
        predicted,
        truth,
        control,
        name=name,
        baselines=_baselines(predicted, truth, control, name, baselines, seed),
        metrics=metrics,
        n_repeats=n_repeats,
        n_resamples=n_resamples,
        min_cells=min_cells,
        seed=seed,
    )
    measured = _together(truth, truth if control is None else control)
    text = render(
        numbers,
        title=f"Report: {name}" if title is None else str(title),
        overview=overview_picture(numbers),
        conditions=condition_pictures(numbers),
        effects=effect_pictures(
            measured, predicted, _largest(numbers, int(n_perturbations)), basis, seed
        ),
        calibration=None if effects is None else calibration_picture(measured, effects),
        made=f"celldit {celldit.__version__}, {datetime.now(UTC).date().isoformat()}, seed {seed}.",
    )
    # All are written before any takes its name, the page last: it is never without its numbers.
    with made_whole(target) as page, made_whole(files[2]) as json, made_whole(files[1]) as csv:
        numbers.table.to_csv(csv, index=False)
        json.write_text(numbers.to_json(), encoding="utf-8")
        page.write_text(text, encoding="utf-8")
    table = numbers.table.copy()
    table.attrs["files"] = [str(file) for file in files]
    return table


def _baselines(
    predicted: ad.AnnData,
    truth: ad.AnnData,
    control: ad.AnnData | None,
    name: str,
    wanted: Mapping[str, ad.AnnData] | bool | ad.AnnData | None,
    seed: int,
) -> dict[str, ad.AnnData]:
    if wanted is None or wanted is False:
        return {}
    if isinstance(wanted, Mapping):
        return {
            str(key): align_genes(adata, truth.var_names, f"baselines[{key!r}]")
            for key, adata in wanted.items()
        }
    found, _ = with_baselines({name: predicted}, truth, control, wanted, seed=seed)
    # The report has the control cells themselves for no change.
    return {key: adata for key, adata in found.items() if key not in (name, NO_CHANGE)}


def _largest(numbers: Numbers, n: int) -> list[str]:
    """Scored perturbations, the largest measured effect first."""
    own = numbers.table[(numbers.table["method"] == numbers.name)]
    scored = set(own[own["value"].notna() & ~own["metric"].str.startswith("n_")]["perturbation"])
    sizes = numbers.effects.groupby("perturbation")["energy"].max()
    return [str(p) for p in sizes.sort_values(ascending=False).index if p in scored][:n]


def _together(truth: ad.AnnData, control: ad.AnnData) -> ad.AnnData:
    """Measured perturbed and control cells in one AnnData, for the pictures."""
    fields = truth_fields(truth, control)
    assert fields.perturbation_key is not None
    sides = []
    for adata, wanted in ((truth, False), (control, True)):
        labels = label_column(adata, fields)
        is_control = (
            canonical_array(labels, fields.perturbation_sep, fields.control) == fields.control
        )
        some = adata[is_control == wanted]
        sides.append(some.to_memory() if some.isbacked else some)
    both = ad.concat(sides, join="inner", index_unique="-", merge="same")
    # Doses and times do not make conditions here, so flaws in them are no reason to refuse.
    kept = replace(fields, dose_key=None, time_key=None)
    setup_anndata(both, **kept.arguments())
    return both
