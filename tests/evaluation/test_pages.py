"""The tables of the pages are those that the committed results give, by studies that still run."""

from __future__ import annotations

import ast
import importlib
import runpy
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "notebooks" / "benchmarks"


@pytest.fixture
def block(monkeypatch):
    """What stands between the marks of a name on a page."""
    monkeypatch.syspath_prepend(str(STUDIES))
    return runpy.run_path(str(STUDIES / "pages.py"))["block"]


def test_how_good_it_is(block):
    script = runpy.run_path(str(STUDIES / "side_by_side.py"))
    rows = pd.read_csv(ROOT / "docs" / "results" / "side_by_side.csv")
    for page, make in (("README.md", "short"), ("docs/evaluation.md", "render")):
        assert block(page, "benchmark") == script[make](rows).strip()


def test_a_mean_over_fewer_seeds_is_marked(block):
    render = runpy.run_path(str(STUDIES / "side_by_side.py"))["render"]
    rows = pd.DataFrame(
        [
            {"dataset": "d", "problem": "p", "method": method, "seed": seed, "closed": 0.5}
            for method, seeds in (("often", 3), ("twice", 2), ("once", 1))
            for seed in range(seeds)
        ]
    ).assign(closed_low=0.4, closed_high=0.6, date="2026-01-01")
    assert "| d: p | 0.50 | 0.50² | 0.50¹ |" in render(rows)
    alike = render(rows[rows["seed"] == 0])
    assert "¹" not in alike
    assert "²" not in alike


def test_what_the_transformer_adds(block):
    script = runpy.run_path(str(STUDIES / "transformer.py"))
    rows = pd.read_csv(ROOT / "docs" / "results" / "transformer.csv")
    own, page = rows[rows["variant"] == "default"], "docs/transformer.md"
    assert block("README.md", "transformer") == script["short"](rows).strip()
    assert block(page, "transformer") == script["table"](own).strip()
    assert block(page, "ablation") == script["ablation"](rows).strip()


def test_what_a_start_from_other_screens_is_worth(block):
    script = runpy.run_path(str(STUDIES / "pretrained.py"))
    rows = pd.read_csv(ROOT / "docs" / "results" / "pretrained.csv")
    assert block("docs/transformer.md", "pretrained") == script["table"](rows).strip()


def test_published_methods(block):
    script = runpy.run_path(str(STUDIES / "peers_table.py"))
    assert block("docs/evaluation.md", "peers") == script["table"]().strip()


@pytest.mark.parametrize("script", sorted(STUDIES.rglob("*.py")), ids=lambda script: script.stem)
def test_studies_import_what_there_is(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "celldit":
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name):
                    importlib.import_module(f"{node.module}.{name}")
