"""Measures of differential expression are those of cell-eval, and can be computed by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from celldit.data.labels import canonical
from celldit.errors import InputError, UnknownNameError
from celldit.evaluation import METRICS, evaluate
from celldit.evaluation.cell_eval import BY_ITS_TESTS, NAMES
from celldit.evaluation.condition import Condition
from celldit.evaluation.metrics import de_overlap, de_precision
from celldit.evaluation.task import Task

# cell-eval's values on the halves of the fixture, written by notebooks/compare_cell_eval.py.
CELL_EVAL = json.loads((Path(__file__).parent / "cell_eval.json").read_text(encoding="utf-8"))
SHIFTS = {
    "pearson": "pearson_delta",
    "discrimination": "discrimination_score_cosine",
    "discrimination_l1": "discrimination_score_l1",
}
TOP = (50, 100, 200, 500)
EXACT = 1e-6


def theirs(screen: str, name: str) -> dict[str, float | None]:
    # celldit sorts the parts of a combination, cell-eval keeps them as written.
    return {canonical(p): value for p, value in CELL_EVAL["values"][screen][name].items()}


@pytest.fixture(scope="module")
def conditions(cell_eval_halves: Any) -> tuple[str, dict[str, Condition]]:
    screen, halves = cell_eval_halves
    task = Task.prepare(halves.truth, halves.control)
    predicted, control = (
        task.read(halves.replicate),
        task.control.dense(np.arange(task.control.n_cells)),
    )
    rows = predicted.conditions()
    return screen, {
        key[0]: Condition(
            predicted.dense(rows[key]), task.truth.dense(true), control, task.components
        )
        for key, true in task.truth.conditions().items()
    }


def test_every_measure_of_cell_eval_is_compared() -> None:
    compared = {*NAMES.values(), *SHIFTS.values(), "mse_delta"}
    compared |= {f"{name}_at_{k}" for name in ("overlap", "precision") for k in TOP}
    compared |= {"de_spearman_sig", "de_nsig_counts_real", "de_nsig_counts_pred"}
    for screen, values in CELL_EVAL["values"].items():
        assert set(values) == compared, screen
    assert {*NAMES, *SHIFTS, *BY_ITS_TESTS} <= set(METRICS)


def test_the_table_holds_cell_eval_s_values(cell_eval_halves: Any) -> None:
    screen, halves = cell_eval_halves
    names = {**NAMES, **SHIFTS}
    table = evaluate(halves.replicate, halves.truth, halves.control, metrics=list(names))
    differs = {p for p, n in theirs(screen, "de_nsig_counts_real").items() if n}
    for ours, name in names.items():
        found = table[table["metric"] == ours].set_index("perturbation")["value"]
        expected = theirs(screen, name)
        assert set(found.index) == set(expected)
        for perturbation, value in expected.items():
            if ours in NAMES and perturbation not in differs:
                # Nothing is differentially expressed, which cell-eval writes as 0 or nothing.
                assert np.isnan(found[perturbation]), (ours, perturbation)
                assert not value, (ours, perturbation)
            elif value is None:
                # Of a single gene there is no correlation.
                assert ours == "de_spearman"
                assert np.isnan(found[perturbation])
            elif ours in ("discrimination", "discrimination_l1") and len(found) == 1:
                assert np.isnan(found[perturbation])
            else:
                assert found[perturbation] == pytest.approx(value, abs=EXACT), (ours, perturbation)


@pytest.mark.parametrize("k", TOP)
def test_the_top_genes_are_cell_eval_s(conditions: Any, k: int) -> None:
    screen, by_name = conditions
    for perturbation, c in by_name.items():
        for function, name in ((de_overlap, "overlap"), (de_precision, "precision")):
            value = function(c.predicted_de, c.true_de, k=k)
            expected = theirs(screen, f"{name}_at_{k}")[perturbation]
            assert np.nan_to_num(value) == pytest.approx(expected, abs=EXACT), perturbation


def test_as_many_genes_differ_as_cell_eval_counts(conditions: Any) -> None:
    screen, by_name = conditions
    counts = {
        p: [len(d.significant()) for d in (c.true_de, c.predicted_de)] for p, c in by_name.items()
    }
    for side, name in enumerate(("real", "pred")):
        expected = theirs(screen, f"de_nsig_counts_{name}")
        assert {p: n[side] for p, n in counts.items()} == expected
    # Its correlation over perturbations leaves out those without a differential gene.
    pairs = np.array([n for n in counts.values() if n[0]])
    across = next(iter(theirs(screen, "de_spearman_sig").values()))
    if across is None:
        assert len(pairs) == 1
    else:
        found = stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic
        assert found == pytest.approx(across, abs=EXACT)


def test_the_squared_error_is_cell_eval_s(conditions: Any) -> None:
    screen, by_name = conditions
    for perturbation, c in by_name.items():
        error = np.mean((c.predicted_shift - c.true_shift) ** 2)
        expected = theirs(screen, "mse_delta")[perturbation]
        assert error == pytest.approx(expected, abs=EXACT), perturbation


def test_cell_eval_computes_when_asked(cell_eval_halves: Any) -> None:
    pytest.importorskip("cell_eval")
    screen, halves = cell_eval_halves
    names = [*NAMES, *BY_ITS_TESTS, "pearson", "energy"]
    keep = [
        c.obs["condition" if screen == "kang" else "perturbation"]
        for c in (halves.replicate, halves.truth)
    ]
    few = sorted(set(keep[0]))[:6]
    sides = [
        side[labels.isin(few).to_numpy()].copy()
        for side, labels in zip((halves.replicate, halves.truth), keep, strict=True)
    ]
    own, other = (
        evaluate(*sides, halves.control, metrics=names, engine=engine)
        for engine in ("celldit", "cell-eval")
    )
    assert own.drop(columns="value").equals(other.drop(columns="value"))
    np.testing.assert_allclose(other["value"], own["value"], atol=EXACT)
    assert own["value"].notna().sum() > 10


def test_cell_eval_tests_as_many_cells_as_were_measured(cell_eval_halves: Any) -> None:
    pytest.importorskip("cell_eval")
    screen, halves = cell_eval_halves
    if screen != "kang":
        pytest.skip("one screen is enough")
    truth = halves.truth[: halves.truth.n_obs // 2].copy()
    names = ["de_recall", "lfc_error"]
    own, other = (
        evaluate(halves.replicate, truth, halves.control, metrics=names, engine=engine)["value"]
        for engine in ("celldit", "cell-eval")
    )
    np.testing.assert_allclose(other, own, atol=EXACT)


def test_cell_eval_refuses_expression_below_zero(papalexi: Any) -> None:
    pytest.importorskip("cell_eval")
    below = papalexi.log_replicate()
    below.X = below.X - 0.01
    with pytest.raises(InputError, match="cell-eval refuses these cells"):
        evaluate(below, papalexi.truth, papalexi.control, engine="cell-eval")


def test_a_missing_cell_eval_is_said_before_any_work(
    papalexi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cell_eval", None)
    with pytest.raises(InputError, match=r"pip install 'celldit\[eval\]'"):
        evaluate(papalexi.replicate, None, engine="cell-eval")  # type: ignore[arg-type]


def test_an_unknown_engine_is_refused(papalexi: Any) -> None:
    with pytest.raises(UnknownNameError, match="cell-eval"):
        evaluate(papalexi.replicate, papalexi.truth, engine="celleval")  # type: ignore[arg-type]
