"""The demo, on a small screen and one epoch."""

from __future__ import annotations

import io

import anndata as ad
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from celldit.cli.demo import EQUAL, FILES, METRICS, draw_effects, run_demo
from celldit.errors import FileError
from celldit.evaluation.catalogue import CEILING

HELD_OUT = (("A", "d3"), ("B", "d3"))


@pytest.fixture(scope="module")
def done(tmp_path_factory, _tiny_screen):
    folder = tmp_path_factory.mktemp("demo") / "output"
    printed = io.StringIO()
    result = run_demo(
        folder,
        adata=_tiny_screen,
        held_out=HELD_OUT,
        tokenizer="modules",
        max_epochs=0,
        n_cells=20,
        console=Console(file=printed, width=80),
    )
    return folder, result, printed.getvalue()


def test_files_are_whole_and_nothing_else_is_left(done):
    folder, result, _ = done
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert sorted(result.paths) == sorted(folder.iterdir())
    predicted = ad.read_h5ad(folder / "predicted.h5ad")
    assert set(predicted.obs["perturbation"]) == {"A", "B"}
    assert set(predicted.obs["donor"]) == {"d3"}
    assert ad.read_h5ad(folder / "generated.h5ad").n_obs == 20
    assert (folder / "effects.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "additive ridge" in page
    assert "<svg" in page
    table = pd.read_csv(folder / "table.csv", index_col="method")
    pd.testing.assert_frame_equal(table, result.table, check_names=False)


def test_the_picture_explains_itself(done, tmp_path, monkeypatch, tiny_screen):
    folder, _, _ = done
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: seen.append(figure))
    predicted = ad.read_h5ad(folder / "predicted.h5ad")
    draw_effects(tiny_screen, predicted, save=tmp_path / "effects.png", show=False)
    (figure,) = seen
    assert "replicate predicted without them" in figure.get_suptitle()
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["a gene", "predicted as measured"]


def test_the_table_holds_every_method_both_ways(done):
    _, result, printed = done
    assert {"celldit", "no change", "mean shift", "additive ridge", CEILING} <= set(
        result.table.index
    )
    assert list(result.table.columns) == [*METRICS, *(f"{metric}{EQUAL}" for metric in METRICS)]
    for name in result.table.index:
        assert name in printed
    assert max(len(line) for line in printed.splitlines() if "│" in line) <= 80


def test_what_it_says_follows_from_the_table(done):
    _, result, printed = done
    for suffix in ("", EQUAL):
        verdicts = result.verdicts(suffix)
        assert [v.metric for v in verdicts] == list(METRICS)
        for verdict in verdicts:
            column = result.table[f"{verdict.metric}{suffix}"].drop(["celldit", CEILING])
            best = column.max() if verdict.metric == "pearson" else column.min()
            assert verdict.best_value == best
            own = result.table.loc["celldit", f"{verdict.metric}{suffix}"]
            assert verdict.wins == (own > best if verdict.metric == "pearson" else own < best)
            assert str(verdict) in printed


def test_existing_files_are_refused(done, tiny_screen):
    folder, _, _ = done
    with pytest.raises(FileError, match="exist already"):
        run_demo(folder, adata=tiny_screen, held_out=HELD_OUT, console=Console(quiet=True))
