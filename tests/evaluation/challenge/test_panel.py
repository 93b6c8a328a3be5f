"""What the preset refuses, and what it makes of other layouts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from celldit.data import Cells, Fields
from celldit.errors import InputError, UnknownNameError
from celldit.evaluation import compare, evaluate
from celldit.evaluation.challenge.panel import MeasuredCells
from celldit.evaluation.expression import targets_of


@pytest.fixture
def parts(papalexi: Any) -> list[ad.AnnData]:
    """Small copies: prediction, truth, control."""
    return [getattr(papalexi, name).copy() for name in ("replicate", "truth", "control")]


def score(parts: list[ad.AnnData]) -> Any:
    return evaluate(*parts, preset="vcc2026", engine="celldit")


def test_every_context_is_a_panel(parts: list[ad.AnnData]) -> None:
    with pytest.warns(UserWarning, match="no better than the mean response in 'squared_error in"):
        table = score(parts)
    assert list(dict.fromkeys(table["context"])) == ["rep_1", "rep_2"]
    assert len(table) == 2 * 7
    lacking = table[table["score"].isna()]
    assert {"squared_error", "composite"} <= set(lacking["measure"])
    assert table.attrs["not_scored"] == {}


def test_genes_in_another_order_are_matched_with_a_note(parts: list[ad.AnnData]) -> None:
    expected = score(parts)
    parts[0] = parts[0][:, ::-1].copy()
    with pytest.warns(UserWarning, match="another order"):
        found = score(parts)
    np.testing.assert_allclose(found["value"], expected["value"], rtol=1e-6)


def test_log_values_are_no_counts(parts: list[ad.AnnData], papalexi: Any) -> None:
    with pytest.raises(InputError, match="X holds log expression"):
        score([papalexi.log_replicate(), *parts[1:]])
    parts[0].layers["counts"] = papalexi.log_replicate().X
    with pytest.raises(InputError, match="celldit needs raw counts"):
        score(parts)


def test_counts_are_no_log_values(parts: list[ad.AnnData]) -> None:
    del parts[0].layers["counts"]
    with pytest.raises(InputError, match="if these are counts, store them"):
        evaluate(*parts, metrics=["pearson"])


def test_missing_and_few_control_cells(parts: list[ad.AnnData]) -> None:
    control = parts[2]
    parts[2] = control[control.obs["replicate"] == "rep_1"].copy()
    with pytest.raises(InputError, match="rep_2 has 0 measured control cells"):
        score(parts)
    few = np.flatnonzero(control.obs["replicate"] == "rep_2")[:9]
    parts[2] = control[np.r_[np.flatnonzero(control.obs["replicate"] == "rep_1"), few]].copy()
    with pytest.raises(InputError, match="9 measured control cells"):
        score(parts)


def test_small_conditions_are_left_out_with_a_reason(parts: list[ad.AnnData]) -> None:
    obs = parts[0].obs
    small = np.flatnonzero((obs["perturbation"] == "STAT1") & (obs["replicate"] == "rep_1"))
    parts[0] = parts[0][np.setdiff1d(np.arange(parts[0].n_obs), small[9:])].copy()
    with pytest.warns(UserWarning, match="STAT1 in rep_1: 9 predicted"):
        table = score(parts)
    assert list(table.attrs["not_scored"]) == ["STAT1 in rep_1"]
    panels, _ = MeasuredCells.read(*parts[1:]).panels(parts[0])
    assert "STAT1" not in panels["rep_1"].real.labels
    assert "STAT1" in panels["rep_2"].real.labels


def test_one_perturbation_is_no_panel(parts: list[ad.AnnData]) -> None:
    parts[0] = parts[0][parts[0].obs["perturbation"] == "STAT1"].copy()
    with pytest.raises(InputError, match="needs several perturbations"):
        score(parts)


def test_unknown_names(parts: list[ad.AnnData]) -> None:
    with pytest.raises(UnknownNameError, match="vcc2026"):
        evaluate(*parts, preset="vcc2025", engine="celldit")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="engine"):
        evaluate(*parts, preset="vcc2026", engine="cell-eval")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not both"):
        evaluate(*parts, preset="vcc2026", metrics=["pearson"])
    parts[0].obs["perturbation"] = parts[0].obs["perturbation"].astype(str) + "x"
    with pytest.raises(UnknownNameError, match="not in truth"):
        score(parts)


def test_combinations_leave_out_all_their_parts(norman: Any) -> None:
    sides = [x.copy() for x in (norman.replicate, norman.truth, norman.control)]
    parts = sorted({p for label in sides[1].obs["perturbation"] for p in label.split("+")})
    for adata in sides:
        others = [g for g in adata.var_names if g not in parts]
        adata.var_names = [*parts, *others][: adata.n_vars]
    panels, _ = MeasuredCells.read(*sides[1:]).panels(sides[0])
    (panel,) = panels.values()
    genes = np.array(panel.genes)
    double = [label for label, at in panel.targets.items() if len(at) == 2]
    assert double
    for label in double:
        assert set(genes[panel.targets[label]]) == set(label.split("+"))


def test_without_the_package_its_name_is_told(
    parts: list[ad.AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cell_eval2", None)
    with pytest.raises(InputError, match=r"celldit\[eval\]"):
        evaluate(*parts, preset="vcc2026")


def test_targets_are_found_without_reading_all_genes_for_each_label() -> None:
    genes = tuple(f"g{i}" for i in range(18_000))
    labels = ("g5+g2", "nothing", "g7+nothing", *(f"g{i}" for i in range(100, 500)))
    start = time.process_time()
    found = targets_of(labels, genes, Fields(perturbation_key="perturbation"))
    assert time.process_time() - start < 0.3
    assert [found[label].tolist() for label in labels[:4]] == [[2, 5], [], [7], [100]]


def test_counts_are_read_from_the_layer_that_is_named(parts: list[ad.AnnData]) -> None:
    expected = score(parts)
    predicted, truth, control = parts
    for measured in (truth, control):
        measured.layers["raw"] = measured.X.copy()
        measured.X = np.log1p(measured.X)
    found = evaluate(
        predicted, truth, control, preset="vcc2026", engine="celldit", counts_layer="raw"
    )
    pd.testing.assert_frame_equal(found, expected)


def test_controls_that_are_no_anndata_are_refused(parts: list[ad.AnnData]) -> None:
    with pytest.raises(InputError, match="an AnnData as control, got int"):
        evaluate(*parts[:2], 3, preset="vcc2026", engine="celldit")  # type: ignore[arg-type]


def test_measured_cells_are_read_once_for_all_methods(
    parts: list[ad.AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reader = [], Cells.from_anndata
    monkeypatch.setattr(Cells, "from_anndata", lambda a, *args: read.append(a) or reader(a, *args))
    predicted, truth, control = parts
    compare(dict.fromkeys("abc", predicted), truth, control, metrics="vcc2026")
    assert len(read) == 3 + 2


def test_counts_of_a_prediction_may_lie_in_x_on_disk(
    parts: list[ad.AnnData], tmp_path: Path
) -> None:
    expected = score(parts)
    parts[0].layers.clear()
    parts[0].write_h5ad(tmp_path / "predicted.h5ad")
    found = score([ad.read_h5ad(tmp_path / "predicted.h5ad", backed="r"), *parts[1:]])
    pd.testing.assert_frame_equal(found, expected)
    parts[0].X = None
    with pytest.raises(InputError, match="X is empty"):
        score(parts)
