"""The same scores by Arc's own package, cell-eval2."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

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

    # Its notes on every step would bury the table.
    with warnings.catch_warnings(), _log_of_errors():
        warnings.simplefilter("ignore")
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
    # A row ``mean``, a column for each measure.
    means = base.agg.row(base.agg["statistic"].to_list().index("mean"), named=True)
    columns = {
        "value": pd.Series(dict(zip(found["metric"], found["mean"], strict=True))),
        "mean_response": pd.Series(means),
        "replicate": pd.Series(dict(zip(anchor["metric"], anchor["replicate"], strict=True))),
    }
    table = pd.DataFrame({n: each.reindex(MEASURES.values()) for n, each in columns.items()})
    return table.astype(np.float64).set_axis(list(MEASURES)).rename_axis("measure")


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
def _log_of_errors() -> Iterator[None]:
    logger = logging.getLogger("cell_eval2")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
