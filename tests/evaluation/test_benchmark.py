"""The benchmark: problems without leaks, a run that resumes, a table made from its JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from celldit.errors import FileError, InputError, UnknownNameError
from celldit.evaluation.benchmark import (
    METRICS,
    Problem,
    baseline_methods,
    judge,
    pose,
    problems,
    render_table,
    run,
)
from celldit.evaluation.benchmark.methods import pathway_features
from celldit.evaluation.benchmark.problems import DATASETS

ROOT = Path(__file__).resolve().parents[2]
SMALL = Problem("small", "A in d3", "pair", (("A", "d3"),), "A in d3")


def methods(*names):
    return {name: baseline_methods()[name] for name in names or ("no change", "additive ridge")}


@pytest.mark.parametrize("problem", problems(), ids=lambda p: f"{p.dataset} {p.name}")
def test_nothing_that_is_held_out_is_trained_on(problem):
    posed = pose(problem)
    key = DATASETS[problem.dataset]["perturbation_key"]
    context = DATASETS[problem.dataset].get("covariate_keys", [])
    assert not set(posed.train.obs_names) & set(posed.truth.obs_names)
    held_out = set(zip(*(posed.truth.obs[k].astype(str) for k in (key, *context)), strict=True))
    trained = set(zip(*(posed.train.obs[k].astype(str) for k in (key, *context)), strict=True))
    assert not held_out & trained
    assert set(posed.controls.obs[key]) == {"control"}
    assert set(posed.controls.obs_names) <= set(posed.train.obs_names)
    for name in context:
        assert set(posed.controls.obs[name]) == set(posed.truth.obs[name])
    assert set(posed.perturbations) == set(posed.truth.obs[key].astype(str))


def test_full_leaves_out_one_thing_at_a_time():
    more = problems(full=True)
    assert len({(p.dataset, p.name) for p in more}) == len(more)
    assert len({(p.dataset, p.by, p.test) for p in more}) == len(more)
    assert {(p.dataset, p.test) for p in problems()} <= {(p.dataset, p.test) for p in more}
    assert {p.name for p in more if len(p.test) > 1} == {
        "3 combinations",
        *(f"8 knock-outs in {replicate}" for replicate in ("rep_1", "rep_2", "rep_3")),
    }
    assert {p.dataset for p in more} == set(DATASETS)
    combinations = [p.test[0] for p in more if p.by == "combination" and len(p.test) == 1]
    assert {"KLF1+MAP2K6", "MAP2K3+MAP2K6", "MAP2K3+SLC38A2"} <= set(combinations)
    assert "BPGM+SAMD1" not in combinations, "BPGM occurs nowhere else"
    never_seen = {p.test[0] for p in more if p.by == "perturbation"}
    assert {"KLF1", "STAT1"} <= never_seen
    assert not any("+" in name for name in never_seen)
    assert len([p for p in more if p.by == "context"]) == 9


def test_a_held_out_context_without_controls_is_refused(tiny_screen):
    keep = ~((tiny_screen.obs["donor"] == "d3") & (tiny_screen.obs["perturbation"] == "control"))
    with pytest.raises(InputError, match="no control cells in 'd3'"):
        pose(SMALL, tiny_screen[keep.to_numpy()].copy())


def test_methods_never_see_the_truth(tiny_screen, tmp_path):
    seen = []

    def spy(posed, seed):
        seen.append((posed.truth.n_obs, seed))
        return baseline_methods()["no change"](posed, seed)

    run([SMALL], {"spy": spy}, tmp_path, seeds=[0, 4], data={"small": tiny_screen})
    assert seen == [(0, 0), (0, 4)]


def test_a_run_is_resumed_and_overwritten_on_demand(tiny_screen, tmp_path):
    calls = []

    def counting(posed, seed):
        calls.append(seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return baseline_methods()["mean shift"](posed, seed)

    both = {"no change": baseline_methods()["no change"], "counting": counting}
    arguments = ([SMALL], both, tmp_path)
    data = {"small": tiny_screen}
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, seeds=[0, 1], data=data)
    assert len(list((tmp_path / "cells").glob("*.json"))) == 3
    reports = []
    results = run(*arguments, seeds=[0, 1], data=data, report=lambda *r: reports.append(r[:2]))
    assert calls == [0, 1, 1], "what was finished is not computed again"
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(results["results"]) == 4
    run(*arguments, seeds=[0], data=data)
    assert len(calls) == 3
    run(*arguments, seeds=[0], data=data, overwrite=True)
    assert len(calls) == 4
    other = replace(SMALL, test=(("B", "d3"),))
    run([other], both, tmp_path, seeds=[0], data=data)
    assert len(calls) == 5, "another problem under the same name is computed"


def test_damaged_results_are_computed_again(tiny_screen, tmp_path):
    run([SMALL], methods(), tmp_path, data={"small": tiny_screen})
    path = sorted((tmp_path / "cells").glob("*.json"))[0]
    before = json.loads(path.read_text())
    path.write_text(path.read_text()[:40])
    run([SMALL], methods(), tmp_path, data={"small": tiny_screen})
    assert json.loads(path.read_text())["all_cells"] == before["all_cells"]


def test_files_agree_with_one_another(tiny_screen, tmp_path):
    results = run([SMALL], methods(), tmp_path, data={"small": tiny_screen})
    assert json.loads((tmp_path / "benchmark.json").read_text()) == results
    text = (tmp_path / "benchmark.md").read_text()
    assert text == render_table(tmp_path / "benchmark.json") == render_table(json.dumps(results))
    table = pd.read_csv(tmp_path / "benchmark.csv")
    for cell, row in zip(results["results"], table.to_dict("records"), strict=True):
        assert row["method"] == cell["method"]
        assert row["nmse_all_cells"] == cell["all_cells"]["nmse"]
        assert f"{cell['all_cells']['nmse']:.3f}" in text
    assert results["machines"][0] in text
    assert results["dates"][0] in text


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileError, match="not of a benchmark"):
        run([SMALL], methods(), tmp_path)
    with pytest.raises(FileError, match="is a file"):
        run([SMALL], methods(), tmp_path / "thesis.txt")


def test_a_method_that_knows_nothing_has_a_reason_instead_of_a_row(tiny_screen, tmp_path):
    results = run(
        [SMALL], methods("no change", "feature ridge"), tmp_path, data={"small": tiny_screen}
    )
    skipped = [cell for cell in results["results"] if "skipped" in cell]
    assert [cell["method"] for cell in skipped] == ["feature ridge"]
    text = render_table(results)
    assert "Not run" in text
    assert "no Reactome pathway" in text


def test_features_know_which_genes_work_together():
    features = pathway_features()

    def cosine(a: str, b: str) -> float:
        u, v = features[a], features[b]
        return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))

    assert cosine("RPL3", "RPL5") > cosine("RPL3", "JAK2")
    assert cosine("JAK2", "STAT1") > cosine("JAK2", "RPL5")
    assert "NOGENE" not in features


def cell(method: str, values: tuple[float, float, float], **more):
    scores = dict(zip(METRICS, values, strict=True))
    return {
        "dataset": "d",
        "problem": "p",
        "group": "g",
        "held_out": ["x"],
        "method": method,
        "seed": 0,
        "code": "c",
        "seconds": 1.0,
        "all_cells": scores,
        "equal_cells": scores,
        "ceiling": dict(zip(METRICS, (0.9, 0.1, 0.0), strict=True)),
        **more,
    }


def content(*cells):
    machine = {"format": 1, "celldit": "0.1.0", "machines": ["m"], "dates": ["2000-01-01"]}
    return {**machine, "results": list(cells)}


def test_the_table_says_where_celldit_is_not_better():
    text = render_table(content(cell("nearest", (0.5, 0.5, 0.2)), cell("celldit", (0.6, 0.5, 0.3))))
    line = next(line for line in text.splitlines() if line.startswith("| d: g"))
    assert "better: Pearson r; not better: squared error (nearest), energy distance (nearest)" in (
        line
    )
    assert "**" not in text
    assert "0.600 / 0.500 / 0.300" in line


def test_seeds_are_averaged_with_their_spread_and_problems_before_them():
    cells = [
        cell("celldit", (r, 0.5, 0.1), seed=seed, problem=problem)
        for seed, problem, r in ((0, "p", 0.2), (0, "q", 0.4), (1, "p", 0.4), (1, "q", 0.6))
    ]
    text = render_table(content(*cells))
    assert "d: g (2)" in text
    assert f"0.400 ± {np.std([0.3, 0.5], ddof=1):.3f}" in text
    assert "seeds 0, 1" in text


def test_methods_are_compared_on_what_both_answered():
    nan = float("nan")
    cells = [
        cell("nearest", (0.2, 0.5, 0.2), problem="p"),
        cell("nearest", (0.9, 0.1, 0.1), problem="easy"),
        cell("celldit", (0.6, 0.4, 0.3), problem="p"),
        cell("celldit", (nan, nan, nan), problem="easy"),
    ]
    text = render_table(content(*cells))
    line = next(line for line in text.splitlines() if line.startswith("| d: g"))
    # Over all that it answered the other's r is .55, and over what celldit answered, too, .2.
    assert "0.550 / 0.300 / 0.150 | 0.600 / 0.400 / 0.300 (1 of 2)" in line
    assert "better: Pearson r, squared error; not better: energy distance (nearest)" in line
    assert "answered only some" in text


def test_judging_leaves_the_ceiling_out_and_calls_a_tie_a_tie():
    values = {
        "a": {"nmse": 0.5},
        "b": {"nmse": 0.4},
        "ceiling": {"nmse": 0.1},
        "celldit": {"nmse": 0.4},
    }
    (verdict,) = judge(values, ("nmse",), "celldit")
    assert verdict.best == "b"
    assert not verdict.wins
    with pytest.raises(UnknownNameError, match="celdit"):
        judge(values, ("nmse",), "celdit")


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(FileError):
        render_table(tmp_path / "gone.json")
    with pytest.raises(FileError, match="no entry 'results'"):
        render_table('{"a": 1}')
    assert render_table(content()) == "No results yet.\n"


def test_the_page_shows_the_committed_results():
    page, results = ROOT / "docs" / "benchmark.md", ROOT / "docs" / "results" / "benchmark.json"
    text = page.read_text(encoding="utf-8")
    start, end = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
    block = text.partition(start)[2].partition(end)[0]
    assert block.strip() == render_table(results).strip()


def test_pages_show_how_good_it_is(monkeypatch):
    import runpy

    folder = ROOT / "notebooks" / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    script = runpy.run_path(str(folder / "side_by_side.py"))
    rows = pd.read_csv(ROOT / "docs" / "results" / "side_by_side.csv")
    for page, make in (("README.md", "short"), ("docs/evaluation.md", "render")):
        text = (ROOT / page).read_text(encoding="utf-8")
        block = text.partition(script["START"])[2].partition(script["END"])[0]
        assert block.strip() == script[make](rows).strip()


def test_pages_show_what_the_transformer_adds(monkeypatch):
    import runpy

    folder = ROOT / "notebooks" / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    script = runpy.run_path(str(folder / "transformer.py"))
    rows = pd.read_csv(ROOT / "docs" / "results" / "transformer.csv")
    for page, make in (("README.md", "short"), ("docs/transformer.md", "table")):
        text = (ROOT / page).read_text(encoding="utf-8")
        block = text.partition(script["START"])[2].partition(script["END"])[0]
        assert block.strip() == script[make](rows).strip()


def test_the_page_shows_the_committed_results_of_the_peers():
    import runpy

    script = runpy.run_path(str(ROOT / "notebooks" / "peers_table.py"))
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    block = text.partition(script["START"])[2].partition(script["END"])[0]
    assert block.strip() == script["table"]().strip()
