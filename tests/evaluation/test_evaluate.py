from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.data.symbols import orthologs
from celldit.errors import CellditError, InputError, UnknownNameError
from celldit.evaluation import (
    DEFAULT,
    METRICS,
    ceiling,
    compare,
    detectable,
    dynamic_range,
    evaluate,
    headroom,
    intervals,
    paired,
)
from celldit.evaluation.catalogue import DE_COUNTS, OF_PANELS
from celldit.evaluation.task import Task
from celldit.report import report

from .conftest import mean_over_conditions

QUICK = ("pearson", "nmse")


def test_the_table_is_tidy_and_repeats(papalexi: Any) -> None:
    halves = papalexi
    table = evaluate(halves.replicate, halves.truth, halves.control)
    again = evaluate(halves.replicate, halves.truth, halves.whole)
    assert list(table.columns) == ["perturbation", "context", "metric", "value"]
    assert not table.duplicated(["perturbation", "context", "metric"]).any()
    assert set(table["metric"]) == {"n_predicted", "n_measured", *DE_COUNTS, *DEFAULT}
    assert set(table["context"]) == {"rep_1", "rep_2"}
    assert len(table) == 6 * 2 * (4 + len(DEFAULT))
    # Control cells are picked out of the whole data set by their label.
    assert table.equals(again)
    assert table.attrs["not_scored"] == {}
    means = mean_over_conditions(table)
    assert means["pearson"] > 0.8
    assert abs(means["energy"]) < 0.02
    assert means["variance_ratio"] == pytest.approx(1.0, abs=0.1)


def test_counts_and_log_expression_agree(papalexi: Any) -> None:
    one = evaluate(papalexi.replicate, papalexi.truth, papalexi.control)
    other = evaluate(papalexi.log_replicate(), papalexi.truth, papalexi.control)
    np.testing.assert_allclose(one["value"], other["value"], rtol=1e-4, atol=1e-5)


def test_every_metric_is_computed_by_name(papalexi: Any) -> None:
    names = ["IFNGR1", "SMAD4", "STAT1"]
    one = papalexi.replicate[papalexi.replicate.obs["perturbation"].isin(names)]
    two = papalexi.truth[papalexi.truth.obs["perturbation"].isin(names)]
    keep = (one.obs["replicate"] == "rep_1").to_numpy(), (two.obs["replicate"] == "rep_1")
    table = evaluate(one[keep[0]].copy(), two[keep[1]].copy(), papalexi.control, metrics="all")
    assert set(table["metric"]) == {"n_predicted", "n_measured", *DE_COUNTS, *METRICS}
    assert table["value"].notna().all()


def test_few_cells_are_reported_not_dropped(papalexi: Any) -> None:
    truth = papalexi.truth
    stat1 = np.flatnonzero(truth.obs["perturbation"] == "STAT1")
    few = truth[np.setdiff1d(np.arange(truth.n_obs), stat1[5:])].copy()
    with pytest.warns(UserWarning, match="not scored.*STAT1"):
        table = evaluate(papalexi.replicate, few, papalexi.control, metrics=QUICK)
    rows = table[table["perturbation"] == "STAT1"]
    assert len(rows) == 2 * len(QUICK)
    assert rows["value"].isna().all()
    assert table[table["perturbation"] != "STAT1"]["value"].notna().all()
    assert any("measured cells" in why for why in table.attrs["not_scored"].values())


def test_conditions_that_were_not_predicted_are_reported(papalexi: Any) -> None:
    predicted = papalexi.replicate[papalexi.replicate.obs["perturbation"] != "IRF1"].copy()
    with pytest.warns(UserWarning, match="IRF1 in rep_1: 0 predicted"):
        table = evaluate(predicted, papalexi.truth, papalexi.control, metrics=QUICK)
    assert table[table["perturbation"] == "IRF1"]["value"].isna().all()


def test_a_prediction_on_disk_is_read(papalexi: Any, tmp_path: Path) -> None:
    papalexi.log_replicate().write_h5ad(tmp_path / "predicted.h5ad")
    on_disk = ad.read_h5ad(tmp_path / "predicted.h5ad", backed="r")
    args = (papalexi.truth, papalexi.control)
    in_memory = evaluate(papalexi.log_replicate(), *args, metrics=QUICK)
    assert evaluate(on_disk, *args, metrics=QUICK).equals(in_memory)


def small(halves: Any, name: str) -> ad.AnnData:
    return getattr(halves, name)[::5].copy()


def break_genes(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    return p[:, 3:].copy(), t, c


def break_control_genes(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    return p, t, c[:, 3:].copy()


def break_context(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    return p, t, c[c.obs["replicate"] == "rep_1"].copy()


def break_label(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    p.obs["perturbation"] = p.obs["perturbation"].astype(str).replace("STAT1", "STAT_1")
    return p, t, c


def break_values(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    counts = p.layers["counts"].toarray().astype(np.float32)
    counts[3, 4] = np.nan
    p.layers["counts"] = counts
    return p, t, c


def break_scale(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    del p.layers["counts"]
    return p, t, c


def break_column(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    del p.obs["replicate"]
    return p, t, c


def break_sizes(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    del p.obs["size_factor"], p.obs["total_umis"]
    return p, t, c


def break_setup(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    del t.uns["celldit"], c.uns["celldit"]
    return p, t, c


def break_truth(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    c.uns = t.uns
    return p, c, c


def break_prediction(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    c.layers["counts"] = c.X.copy()
    return c, t, c


def break_controls(p: ad.AnnData, t: ad.AnnData, c: ad.AnnData) -> tuple[ad.AnnData, ...]:
    return p, t, t


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (break_genes, InputError, "lacks 3 of 299"),
        (break_control_genes, InputError, "genes of control.*lacks 3 of 299"),
        (break_context, InputError, "no control cells .*'rep_2'"),
        (break_label, UnknownNameError, "STAT_1.*Did you mean 'STAT1'"),
        (break_values, InputError, "1 values that are NaN"),
        (break_scale, InputError, "whole numbers"),
        (break_column, UnknownNameError, "predicted.obs lacks 'replicate'"),
        (break_sizes, InputError, "size_factor"),
        (break_setup, InputError, "setup_anndata"),
        (break_truth, InputError, "no perturbed cells"),
        (break_prediction, InputError, "predicted has no perturbed cells"),
        (break_controls, InputError, "no cells labelled 'control'"),
    ],
)
def test_bad_input_is_an_error_that_says_what_to_do(
    change: Any, error: type[CellditError], text: str, papalexi: Any
) -> None:
    parts = change(*(small(papalexi, name) for name in ("replicate", "truth", "control")))
    before = [part.copy() for part in parts]
    with pytest.raises(error, match=text):
        evaluate(*parts, metrics=QUICK, min_cells=2)
    for part, copy in zip(parts, before, strict=True):
        assert part.obs.equals(copy.obs)
        assert list(part.layers) == list(copy.layers)


def test_other_orders_of_genes_are_matched_with_a_note(papalexi: Any) -> None:
    parts = [papalexi.replicate, papalexi.truth, papalexi.control]
    expected = evaluate(*parts, metrics=QUICK)
    for turned in (0, 2):
        mixed = list(parts)
        mixed[turned] = mixed[turned][:, ::-1].copy()
        with pytest.warns(UserWarning, match="another order.*matched by name"):
            found = evaluate(*mixed, metrics=QUICK)
        np.testing.assert_allclose(found["value"], expected["value"], atol=1e-6)


def test_controls_default_to_those_of_the_truth(papalexi: Any) -> None:
    given = evaluate(papalexi.replicate, papalexi.whole, papalexi.whole, metrics=QUICK)
    assert evaluate(papalexi.replicate, papalexi.whole, metrics=QUICK).equals(given)
    perturbed = papalexi.whole[papalexi.whole.obs["perturbation"] != "control"].copy()
    with pytest.raises(InputError, match=r"truth has no cells labelled 'control'.* as control"):
        evaluate(papalexi.replicate, perturbed, metrics=QUICK)


def test_truth_without_a_setup_of_its_own_is_read_as_its_controls_are(papalexi: Any) -> None:
    # Cells of held-out conditions alone have no controls, so that they cannot be set up.
    bare = papalexi.truth.copy()
    del bare.uns["celldit"]
    read = evaluate(papalexi.replicate, bare, papalexi.control, metrics=QUICK)
    assert read.equals(
        evaluate(papalexi.replicate, papalexi.truth, papalexi.control, metrics=QUICK)
    )
    with pytest.raises(InputError, match=r"call celldit\.CellDiT\.setup_anndata"):
        evaluate(papalexi.replicate, bare, metrics=QUICK)


def test_unknown_metrics_are_named(papalexi: Any) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'pearson'"):
        evaluate(papalexi.replicate, papalexi.truth, papalexi.control, metrics=["Pearsson"])
    with pytest.raises(InputError, match="No metric"):
        evaluate(papalexi.replicate, papalexi.truth, papalexi.control, metrics=[])


def test_size_factors_default_to_the_sum_of_counts(papalexi: Any) -> None:
    truth, control, predicted = (
        x.copy() for x in (papalexi.truth, papalexi.control, papalexi.truth)
    )
    for adata in (truth, control):
        del adata.uns["celldit"]["setup"]["size_factor_key"]
    predicted.layers["counts"] = predicted.X
    del predicted.obs["total_umis"]
    table = evaluate(predicted, truth, control, metrics=["energy", "pearson"])
    assert table[table["metric"] == "pearson"]["value"].min() == pytest.approx(1.0)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=3)
def test_order_of_cells_does_not_matter(papalexi: Any, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(papalexi.replicate.n_obs)
    one = evaluate(papalexi.replicate, papalexi.truth, papalexi.control, metrics=["energy", "nmse"])
    other = evaluate(
        papalexi.replicate[order].copy(),
        papalexi.truth,
        papalexi.control,
        metrics=["energy", "nmse"],
    )
    np.testing.assert_allclose(one["value"], other["value"], atol=1e-6)


def test_the_targets_of_a_panel_are_looked_up_once(
    papalexi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, targets = [], Task._targets
    monkeypatch.setattr(Task, "_targets", lambda *args: asked.append(args) or targets(*args))
    parts = papalexi.replicate, papalexi.truth, papalexi.control
    evaluate(*parts, metrics=["pearson", *OF_PANELS])
    assert len(asked) == 2  # contexts
    evaluate(*parts, metrics="pearson")
    assert len(asked) == 2


def test_numbers_of_cells_and_called_genes_are_no_measures(papalexi: Any, tmp_path: Path) -> None:
    parts = papalexi.replicate, papalexi.truth, papalexi.control
    for counts in ("n_predicted", ["n_measured", "n_predicted"]):
        for ask in (
            lambda m: intervals(*parts, metrics=m, n_resamples=2),
            lambda m: dynamic_range(*parts[1:], metrics=m, n_repeats=2),
            lambda m: compare(*parts, metrics=m),
            lambda m: report(*parts, tmp_path / "report.html", metrics=m),
        ):
            with pytest.raises(InputError, match="No measure was asked for"):
                ask(counts)
    both = ["nmse", "n_called_measured"]
    options = {"n_repeats": 1, "n_resamples": 2, "n_perturbations": 0}
    report(*parts, tmp_path / "report.html", metrics=both, **options)
    table = compare({"a": parts[0], "b": parts[0]}, *parts[1:], metrics=both, baseline="a")
    assert list(table.columns) == ["nmse", "n_called_measured", "nmse_score"]
    with pytest.raises(InputError, match="No measure was asked for"):
        dynamic_range(*parts[1:], metrics="n_called_measured", n_repeats=2)


@pytest.mark.parametrize(
    ("call", "options", "said"),
    [
        (evaluate, {"min_cells": "few"}, "min_cells='few' must be a whole number"),
        (evaluate, {"seed": -1}, "seed=-1 must be a whole number"),
        (evaluate, {"metrics": 3}, "metrics=3 must be a name, or a list of names"),
        (compare, {"n_repeats": None}, "n_repeats=None must be a whole number"),
        (intervals, {"n_resamples": "x"}, "n_resamples='x' must be a whole number"),
        (intervals, {"level": 2}, "level=2 must lie between 0 and 1"),
        (report, {"n_perturbations": 1.5}, "n_perturbations=1.5 must be a whole number"),
        (report, {"path": 3}, "A path is text"),
    ],
)
def test_odd_arguments_are_refused_by_name(
    call: Any, options: dict[str, Any], said: str, papalexi: Any
) -> None:
    with pytest.raises(CellditError, match=said):
        call(papalexi.replicate, papalexi.truth, papalexi.control, **options)


def test_whole_numbers_may_be_written_as_others(papalexi: Any) -> None:
    parts = papalexi.replicate, papalexi.truth, papalexi.control
    for call, sides, name in (
        (ceiling, parts[1:], "n_repeats"),
        (dynamic_range, parts[1:], "n_repeats"),
        (detectable, parts[1:], "n_permutations"),
    ):
        options = {} if call is detectable else {"metrics": "nmse"}
        assert call(*sides, **options, **{name: 2.0}).equals(call(*sides, **options, **{name: 2}))
    table = intervals(*parts, metrics="nmse", n_resamples=2.0)  # type: ignore[arg-type]
    assert table.equals(intervals(*parts, metrics="nmse", n_resamples=2))


def test_seeds_beyond_those_of_sklearn_are_taken(papalexi: Any) -> None:
    parts = papalexi.replicate, papalexi.truth, papalexi.control
    found = evaluate(*parts, metrics=["w2_sliced", "energy"], seed=2**40 + 3)
    again = evaluate(*parts, metrics=["w2_sliced", "energy"], seed=2**40 + 3)
    assert found.equals(again)


def test_odd_arguments_of_what_takes_no_prediction(papalexi: Any) -> None:
    measured = papalexi.truth, papalexi.control
    for call, options, said in (
        (ceiling, {"n_repeats": 1.5}, "n_repeats=1.5 must be a whole number"),
        (dynamic_range, {"n_repeats": 1}, "at least 2"),
        (detectable, {"max_cells": -5}, "max_cells=-5 must be a whole number"),
        (detectable, {"alpha": "x"}, "alpha='x' must be a number"),
    ):
        with pytest.raises(InputError, match=said):
            call(*measured, **options)
    halves = {"a": papalexi.replicate, "b": papalexi.replicate}
    table = compare(halves, *measured, metrics="de_overlap", n_repeats=1)
    with pytest.raises(UnknownNameError, match="metric in the table 'n_called_predicted'"):
        headroom(table, "a", "b", metric="n_called_predicted")
    with pytest.raises(InputError, match="level=2 must lie"):
        paired(table, "a", "b", level=2)


@pytest.mark.parametrize("asked", [{"metrics": "discrimination"}, {"preset": "vcc2026"}])
def test_genes_named_by_ensembl_ids_are_left_out_as_those_named_by_symbols(
    asked: dict[str, Any], papalexi: Any
) -> None:
    sides = papalexi.replicate, papalexi.truth, papalexi.control
    id_of = {symbol: gene for gene, symbol in orthologs().of_id.items() if "MUS" not in gene}
    coded = []
    for adata in (side.copy() for side in sides):
        adata.var_names = [id_of.get(symbol, symbol) for symbol in adata.var_names]
        coded.append(adata)
    engine = {"engine": "celldit"} if "preset" in asked else {}
    by_symbol, by_id = (evaluate(*some, **asked, **engine) for some in (sides, coded))
    pd.testing.assert_frame_equal(by_id, by_symbol)


def _without(adata: ad.AnnData, label: str, replicate: str, kept: int = 0) -> ad.AnnData:
    """The same with so many cells of one condition."""
    own = (adata.obs["perturbation"] == label) & (adata.obs["replicate"] == replicate)
    left_out = np.flatnonzero(own)[kept:]
    return adata[np.setdiff1d(np.arange(adata.n_obs), left_out)].copy()


def test_what_is_on_one_side_only_is_not_scored_however_few_cells_are_asked_for(
    papalexi: Any,
) -> None:
    truth = _without(papalexi.truth, "STAT1", "rep_1")
    with pytest.warns(UserWarning, match="STAT1 in rep_1: 0 measured cells"):
        table = evaluate(papalexi.replicate, truth, papalexi.control, metrics="nmse", min_cells=0)
    values = table.set_index(["perturbation", "context"])["value"]
    assert np.isnan(values["STAT1", "rep_1"])
    assert values.drop(("STAT1", "rep_1")).notna().any()


def test_a_cell_does_not_predict_itself(papalexi: Any) -> None:
    truth = _without(papalexi.truth, "STAT1", "rep_1", kept=1)
    with pytest.warns(UserWarning, match="STAT1 in rep_1"):
        table = ceiling(truth, papalexi.control, metrics="pearson", min_cells=0, n_repeats=1)
    values = table.set_index(["perturbation", "context"])["value"]
    assert np.isnan(values["STAT1", "rep_1"])


def test_one_perturbation_cannot_be_mixed_up(papalexi: Any) -> None:
    one = papalexi.truth[papalexi.truth.obs["perturbation"] == "STAT1"].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = dynamic_range(one, papalexi.control, metrics="pearson", n_repeats=2)
        some = papalexi.control.obs.groupby("replicate", observed=True).head(6).index
        few = dynamic_range(one, papalexi.control[some].copy(), metrics="pearson", n_repeats=2)
    assert np.isnan(table.loc["pearson", "mixed_up"])
    assert table.loc["pearson", ["replicate", "no_change"]].notna().all()
    assert few.loc["false_calls"].drop("tells").isna().all()
