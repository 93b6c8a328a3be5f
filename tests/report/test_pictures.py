"""What is written in the report can be read: nothing cut, nothing over something else."""

from __future__ import annotations

import re
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import celldit as cd
from celldit import datasets
from celldit.evaluation import DEFAULT
from celldit.report import page, pictures

LONG = "a perturbation of several genes with a long name"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a call makes, kept open."""
    found: list[Figure] = []

    def keep(figure: Figure, about: str) -> pictures.Picture:
        figure.canvas.draw()
        found.append(figure)
        return pictures.Picture("", about)

    monkeypatch.setattr(pictures, "_picture", keep)
    yield found
    plt.close("all")


def sticks_out(figure: Figure) -> bool:
    """Whether anything drawn lies outside of the figure by more than a pixel."""
    drawn, paper = figure.get_tightbbox(figure.canvas.get_renderer()), figure.bbox_inches
    slack = 1 / figure.dpi
    low, high = np.subtract(drawn.min, paper.min), np.subtract(paper.max, drawn.max)
    return bool(np.any(low < -slack) or np.any(high < -slack))


@pytest.mark.parametrize("name", ["celldit", "nearest perturbation", LONG])
def test_nothing_is_cut_from_the_picture_of_conditions(name: str, drawn: list[Figure]) -> None:
    rows = [
        (method, perturbation, "rep_1", metric, 0.1 * i, 0.0, 0.2)
        for i, method in enumerate((name, "no change", "nearest perturbations", "ceiling"))
        for perturbation in ("A", "B", LONG)
        for metric in ("pearson", "nmse", "energy")
    ]
    columns = ["method", "perturbation", "context", "metric", "value", "low", "high"]
    numbers: Any = SimpleNamespace(name=name, table=pd.DataFrame(rows, columns=columns))
    pictures.condition_pictures(numbers)
    assert len(drawn) == 3
    for figure in drawn:
        assert not sticks_out(figure)


def test_labels_under_violins_do_not_touch(drawn: list[Figure]) -> None:
    adata = datasets.papalexi()
    keep = adata.obs["perturbation"].isin(["control", "STAT1"]) & (
        adata.obs["replicate"] == "rep_2"
    )
    adata = adata[keep].copy()
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", size_factor_key="total_umis")
    predicted = adata[adata.obs["perturbation"] == "STAT1"].copy()
    predicted.layers["counts"] = predicted.X.copy()
    predicted.obs["size_factor"] = predicted.obs["total_umis"]
    pictures.effect_pictures(adata, predicted, ["STAT1"], "pca", 0)
    violins = drawn[1]
    renderer = violins.canvas.get_renderer()
    assert len(violins.axes) == 4
    for ax in violins.axes:
        boxes = [label.get_window_extent(renderer) for label in ax.get_xticklabels()]
        assert len(boxes) == 3
        for left, right in pairwise(boxes):
            assert left.x1 < right.x0
    # Both panels on the left say what is drawn.
    assert [bool(ax.get_ylabel()) for ax in violins.axes] == [True, False, True, False]
    for figure in drawn:
        assert not sticks_out(figure)


def test_a_table_marks_one_column_and_says_whole_names() -> None:
    head = ["", "ideal", "score", LONG]
    text = page.table(head, [("a & b", ["1", "2", "3"])], own=2)
    cells = re.findall(r"<(?:th|td)[^>]*class='own'[^>]*>([^<]*)<", text)
    assert cells == ["score", "2"]
    assert f"title='{LONG}'" in text
    assert "a &amp; b" in text


def test_every_default_measure_is_a_row_of_the_summary() -> None:
    values = pd.DataFrame(
        np.arange(2.0 * len(DEFAULT)).reshape(2, -1), ["ideal", "no change"], list(DEFAULT)
    )
    numbers: Any = SimpleNamespace(name="ideal", summary=values, equal=values, scores={})
    text = page._summary(numbers)
    rows = re.findall(r"<th scope='row' title='([^']*)'", text)
    assert rows == [page.measure_name(m) for m in DEFAULT] * 2
    # A method may be called as a column is.
    assert text.count("<th scope='col' class='own' title='ideal'>") == 2
    assert text.count("<th scope='col' title='ideal'>") == 2


def test_intervals_that_hold_everything_are_drawn_whole(screen_effects: Any) -> None:
    adata, effects = screen_effects
    ax = cd.pl.calibration(adata, effects, show=False)
    curve = next(line for line in ax.lines if line.get_marker() == "o")
    assert np.max(curve.get_ydata()) == 1.0
    assert not curve.get_clip_on()
    plt.close("all")


@pytest.fixture
def screen_effects(simulate_screen: Any) -> Any:
    adata = simulate_screen(n_cells=600)
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["donor"]
    )
    effects = pd.DataFrame(
        {"perturbation": "A", "context": "d1", "gene": adata.var_names, "log_fold_change": 0.0}
    )
    return adata, effects.assign(sd=9.0)


def test_more_baselines_than_colours_are_drawn(drawn: list[Figure]) -> None:
    methods = ("celldit", *(f"baseline {i}" for i in range(20)), "ceiling")
    rows = [(method, "A", "rep_1", "nmse", 0.5, 0.4, 0.6) for method in methods]
    columns = ["method", "perturbation", "context", "metric", "value", "low", "high"]
    numbers: Any = SimpleNamespace(name="celldit", table=pd.DataFrame(rows, columns=columns))
    pictures.condition_pictures(numbers)
    assert len(drawn[0].axes[0].collections) >= len(methods)
