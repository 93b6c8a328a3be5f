"""celldit's own numbers are cell-eval2's."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from celldit.evaluation import evaluate, metrics
from celldit.evaluation.challenge.measures import MEASURES
from celldit.evaluation.challenge.package import _anndata, package_values
from celldit.evaluation.challenge.panel import MeasuredCells, Panel
from celldit.evaluation.challenge.rank_tests import ControlRanks, rank_tests
from celldit.evaluation.challenge.scores import own_values
from celldit.evaluation.metrics import DifferentialExpression

pytest.importorskip("cell_eval2", reason="install celldit[eval] to compare with it")

COLUMNS = ["value", "mean_response", "replicate", "score"]


@pytest.fixture(scope="module")
def one_replicate(papalexi: Any) -> tuple[ad.AnnData, ad.AnnData, ad.AnnData]:
    """What knock-outs did in one replicate as a prediction of another."""
    whole = papalexi.whole
    where, label = whole.obs["replicate"].astype(str), whole.obs["perturbation"].astype(str)
    predicted = whole[(where == "rep_1") & (label != "control")].copy()
    predicted.obs["replicate"] = "rep_2"
    truth = whole[(where == "rep_2") & (label != "control")].copy()
    return predicted, truth, whole[(where == "rep_2") & (label == "control")][:300].copy()


def test_all_six_measures_and_both_ends_agree(one_replicate: tuple) -> None:
    predicted, truth, control = one_replicate
    theirs = evaluate(predicted, truth, control, preset="vcc2026")
    ours = evaluate(predicted, truth, control, preset="vcc2026", engine="celldit")
    assert list(ours["measure"]) == [*MEASURES, "composite"]
    pd.testing.assert_frame_equal(ours[["context", "measure"]], theirs[["context", "measure"]])
    np.testing.assert_allclose(ours[COLUMNS], theirs[COLUMNS], atol=1e-6)
    assert ours["value"].notna().sum() == 6
    assert ours["score"].notna().sum() >= 5


def test_scores_are_those_of_its_own_scorer(one_replicate: tuple) -> None:
    from dataclasses import replace

    from cell_eval2.catalog import CATALOG
    from cell_eval2.scoring import is_degenerate, score_one

    ours = evaluate(*one_replicate, preset="vcc2026", engine="celldit").set_index("measure")
    for name, theirs in MEASURES.items():
        row = ours.loc[name]
        policy = replace(CATALOG[theirs].scoring, anchor=float(row["replicate"]))
        base = float(row["mean_response"])
        if is_degenerate(base, policy):
            assert np.isnan(row["score"])
            continue
        assert row["score"] == pytest.approx(score_one(float(row["value"]), base, policy)), name


def test_perturbations_that_are_no_genes_agree(one_replicate: tuple) -> None:
    predicted, truth, control = (adata.copy() for adata in one_replicate)
    for adata in (predicted, truth):
        labels = adata.obs["perturbation"].astype(str)
        adata.obs["perturbation"] = labels.replace({"STAT1": "a drug", "IRF1": "IRF1 antibody"})
    panels, _ = MeasuredCells.read(truth, control).panels(predicted)
    (panel,) = panels.values()
    assert [len(at) for at in panel.targets.values()].count(0) >= 2
    theirs, ours = package_values(panel), own_values(panel)
    pd.testing.assert_index_equal(ours.index, theirs.index)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def _table(tests: DifferentialExpression, panel: Panel) -> Any:
    """Tests of genes as cell-eval2 reads them."""
    import polars as pl

    rows, genes = np.nonzero(np.isfinite(tests.q_value))
    return pl.DataFrame(
        {
            "target": np.asarray(panel.real.labels)[rows],
            "feature": np.asarray(panel.genes)[genes],
            "log2_fold_change": tests.log2_fold_change[rows, genes],
            "p_value": tests.p_value[rows, genes],
            "p_adj": tests.q_value[rows, genes],
        }
    )


def test_measures_of_called_genes_are_its_own(papalexi: Any) -> None:
    """On counts scaled to their own sum, as it scales them."""
    from dataclasses import replace

    from cell_eval2 import EvalConfig, compute_metrics

    names = {
        "de_overlap": "de_wilcoxon_overlap",
        "de_direction": "de_wilcoxon_direction_match",
    }
    here = [
        x[x.obs["replicate"] == "rep_2"].copy()
        for x in (papalexi.replicate, papalexi.truth, papalexi.control)
    ]
    for adata in here:
        setup = adata.uns["celldit"]["setup"]
        setup["covariate_keys"] = []
        setup.pop("size_factor_key", None)
        adata.obs = adata.obs[["perturbation"]].copy()
    predicted, truth, control = here
    predicted.layers["counts"] = predicted.X.copy()
    config = replace(
        EvalConfig.v2(),
        metrics=list(names.values()),
        pert_col="perturbation",
        control="control",
        device="cpu",
        de=replace(EvalConfig.v2().de, backend="scanpy"),
    )
    (panel,) = MeasuredCells.read(truth, control).panels(predicted)[0].values()
    ranks = ControlRanks.of(panel.controls.counts)
    found, true = (rank_tests(groups, ranks) for groups in (panel.predicted, panel.real))
    # The same tests for both: scanpy sums ranks in single precision, and so is off in the fourth
    # digit of a p value now and then.
    theirs = compute_metrics(
        _anndata(panel.predicted, panel),
        _anndata(panel.real, panel),
        config=config,
        de_pred=_table(found, panel),
        de_real=_table(true, panel),
    )
    table = {(p, m): v for p, m, v in theirs.select("perturbation", "metric", "value").rows()}
    through_the_table = evaluate(predicted, truth, control, metrics=list(names))
    listed = through_the_table.set_index(["perturbation", "metric"])["value"]
    compared = 0
    for p, label in enumerate(panel.real.labels):
        one, other = (
            DifferentialExpression(side.log2_fold_change[p], side.p_value[p], side.q_value[p])
            for side in (found, true)
        )
        for name, theirs in names.items():
            value = table.get((label, theirs))
            if value is None or np.isnan(value):
                continue
            assert getattr(metrics, name)(one, other) == pytest.approx(value, abs=1e-6), name
            # Counts scaled to ten thousand in place of a million round, and so tie, otherwise.
            assert listed[label, name] == pytest.approx(value, abs=0.01), name
            compared += 1
    assert compared > 10
