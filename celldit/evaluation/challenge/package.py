"""The same scores by Arc's own package, cell-eval2."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.errors import InputError
from celldit.evaluation.challenge.measures import MEASURES
from celldit.evaluation.challenge.panel import CountGroups, Panel

_LABEL = "perturbation"


def check_installed() -> None:
    """Refuse, before any work, to compute with a package that is missing."""
    try:
        import cell_eval2  # noqa: F401
    except ImportError as error:
        raise InputError(
            "The engine 'cell-eval2' needs the package of that name; install it with "
            "pip install 'celldit[eval]', or give engine='celldit', which computes the same values."
        ) from error


def package_values(panel: Panel, seed: int = 0) -> pd.DataFrame:
    """Let cell-eval2 measure a panel, the mean response of it, and its replicate.

    One row for each of :data:`MEASURES`: ``value``, ``mean_response``, ``replicate``. The package
    knows one target gene for each perturbation. Of a combination it gets the first part that is
    among the genes; celldit's own engine leaves out all parts. InputError if the package refuses
    the data.
    """
    from cell_eval2 import EvalConfig, aggregate_metrics, build_generic_baseline, compute_metrics
    from cell_eval2.anchor import compute_replicate_anchor

    with _quiet():
        config = replace(
            EvalConfig.from_preset("vcc2026"),
            pert_col=_LABEL,
            control=panel.control_label,
            device="cpu",
            # The CPU tests of scanpy, so that a number does not depend on what is installed.
            de=replace(EvalConfig.from_preset("vcc2026").de, backend="scanpy"),
            allow_fractional_counts=True,
            target_gene_map={
                label: panel.genes[at[0]] if len(at) else None
                for label, at in panel.targets.items()
            },
        )
        real = _anndata(panel.real, panel)
        predicted = _anndata(panel.predicted, panel)
        try:
            found = aggregate_metrics(
                compute_metrics(predicted, real, config=config), metrics=list(MEASURES.values())
            )
            base = build_generic_baseline(real, config=config, seed=seed, allow_degenerate=True)
            _, anchor = compute_replicate_anchor(real, config=config, base_seed=seed)
        except ValueError as error:
            raise InputError(
                f"cell-eval2 refuses these cells ({' '.join(str(error).split())[:300]}); give "
                "engine='celldit' to see which measures can be computed."
            ) from error
    columns = {
        "value": dict(zip(found["metric"], found["mean"], strict=True)),
        "mean_response": _means(base.agg),
        "replicate": dict(zip(anchor["metric"], anchor["replicate"], strict=True)),
    }
    return pd.DataFrame(
        {
            name: [float(values.get(theirs, np.nan)) for theirs in MEASURES.values()]
            for name, values in columns.items()
        },
        index=pd.Index(list(MEASURES), name="measure"),
    )


def _means(table: Any) -> dict[str, float]:
    """Read its wide table of aggregates: a row ``mean``, a column for each measure."""
    row = table.row(table["statistic"].to_list().index("mean"), named=True)
    return {name: value for name, value in row.items() if name != "statistic" and value is not None}


def _anndata(groups: CountGroups, panel: Panel) -> ad.AnnData:
    """Perturbed cells with the measured control cells behind them."""
    counts = sparse.vstack([groups.counts, panel.controls.counts], format="csr")
    labels = [
        *np.asarray(groups.labels)[groups.codes],
        *[panel.control_label] * panel.controls.counts.shape[0],
    ]
    obs = pd.DataFrame({_LABEL: labels}, index=[str(i) for i in range(len(labels))])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=list(panel.genes)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Its notes on every step would bury the table."""
    logger = logging.getLogger("cell_eval2")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
