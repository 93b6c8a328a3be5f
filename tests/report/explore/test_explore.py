"""The page to explore holds what the tools say, fetches nothing, and never runs a name."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.data import Cells, Fields
from celldit.errors import FileError, InputError, UnknownNameError
from celldit.report.explore import content
from celldit.report.explore.page import packed, packed_rates, packed_shares, render

HOSTILE = "</script><img src=x onerror=alert(1)>"


def unpacked(part: dict[str, Any]) -> np.ndarray:
    raw = base64.b64decode(part["data"])
    if part["kind"] == "i2":
        whole = np.frombuffer(raw, "<i2").astype(float)
        return np.where(whole == -32768, np.nan, whole * part["step"])
    bits = np.frombuffer(raw, "u1").astype(float) * part["step"]
    return part["largest"] * 10**-bits if part["kind"] == "log" else bits


def content_of(page: Path) -> dict[str, Any]:
    found = re.search(
        r'<script id="content" type="application/json">(.*?)</script>',
        page.read_text("utf-8"),
        re.S,
    )
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any, _tiny_screen: ad.AnnData, tiny_model: Any) -> Path:
    path = tmp_path_factory.mktemp("explore") / "explore.html"
    targets = {"like C": "perturbation == 'C'"}
    return cd.report.explore(_tiny_screen, tiny_model, path, targets=targets, title="Seen & new")


def test_numbers_survive_packing() -> None:
    values = np.array([-3.1234, 0.0, 2.5, np.nan])
    np.testing.assert_allclose(unpacked(packed(values)), values, atol=1 / 4096)
    np.testing.assert_allclose(
        unpacked(packed_shares(np.array([0, 0.3, 1]))), [0, 0.3, 1], atol=2e-3
    )
    rates = np.array([1.0, 0.05, 2e-4, 1e-9])
    np.testing.assert_allclose(unpacked(packed_rates(rates))[:3], rates[:3], rtol=0.02)
    assert unpacked(packed_rates(rates))[3] == pytest.approx(1e-4)
    np.testing.assert_allclose(unpacked(packed_rates(np.array([0.4]), 100.0)), 0.4, rtol=0.02)


def test_the_page_holds_what_the_table_says(
    page: Path, tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    found = content_of(page)
    assert found["perturbations"] == ["A", "A+B", "B", "C"]
    assert sorted(found["contexts"]) == ["d1", "d2", "d3"]
    table = cd.tl.effects(tiny_screen, tiny_model)
    order = pd.MultiIndex.from_product(
        [found["perturbations"], found["contexts"], found["genes"]],
        names=["perturbation", "context", "gene"],
    )
    own = table.set_index(["perturbation", "context", "gene"]).loc[order]
    np.testing.assert_allclose(unpacked(found["effect"]), own["log2_fold_change"], atol=5e-4)
    np.testing.assert_allclose(unpacked(found["sd"]), own["log2_sd"], rtol=0.03)
    np.testing.assert_allclose(unpacked(found["lfsr"]), own["lfsr"].clip(lower=1e-4), rtol=0.03)
    np.testing.assert_allclose(unpacked(found["p_changed"]), own["p_changed"], atol=3e-3)
    kinds = own["extrapolation"].to_numpy()[:: len(found["genes"])]
    assert found["kinds"] == list(kinds)
    assert found["summary"] == tiny_model.summary().splitlines()


def test_measured_changes_are_those_of_the_cells(page: Path, tiny_screen: ad.AnnData) -> None:
    found = content_of(page)
    shape = len(found["perturbations"]), len(found["contexts"]), len(found["genes"])
    measured = unpacked(found["measured"]).reshape(shape)
    rates = tiny_screen.X.toarray() / tiny_screen.X.sum(1) * 1e4
    obs = tiny_screen.obs
    where = found["contexts"][1]
    mean = [
        np.asarray(rates[((obs["perturbation"] == label) & (obs["donor"] == where)).to_numpy()])
        .mean(0) for label in ("control", "B")
    ]  # fmt: skip
    expected = np.log2((mean[1] + 0.05) / (mean[0] + 0.05))
    np.testing.assert_allclose(measured[2, 1], expected, atol=1e-3)
    target = found["targets"][0]
    assert target["name"] == "like C"
    rows = unpacked(target["effect"]).reshape(len(target["contexts"]), -1)
    np.testing.assert_allclose(rows, measured[3], atol=1e-6)


def test_measured_changes_take_one_pass_over_the_cells(
    tiny_screen: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    rates = content.mean_rates
    monkeypatch.setattr(content, "mean_rates", lambda *args: passes.append(0) or rates(*args))
    cells = Cells.from_anndata(tiny_screen, Fields.from_anndata(tiny_screen))
    half = np.arange(cells.n_cells) % 2 == 0
    changes, n_cells = content._measured(cells, {"half": half, "all": ~half | half}, "+")
    assert len(passes) == 3  # perturbations, and each target
    assert sum(n for (name, _), n in n_cells.items() if name == "target:half") == half.sum()
    assert ("A", "d1") in changes


def test_cells_before_and_after_are_the_same_cells(page: Path) -> None:
    plane = content_of(page)["plane"]
    n = len(plane["context"])
    before = unpacked(plane["before"]).reshape(n, 2)
    after = unpacked(plane["after"]).reshape(4, n, 2)
    assert np.isfinite(after).all()
    assert not np.allclose(after[0], before, atol=0.01)
    assert len(unpacked(plane["background"])) == 2 * len(plane["background_label"])


def test_nothing_is_fetched_and_nothing_injected(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "<title>Seen &amp; new</title>" in text
    assert "default-src 'none'" in text
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert "://" not in own
    found = content_of(page)
    hostile = {**found, "genes": [HOSTILE, *found["genes"][1:]], "contexts": [HOSTILE]}
    made = render(hostile, HOSTILE).decode()
    assert HOSTILE not in made
    assert content_of_text(made)["genes"][0] == HOSTILE


def content_of_text(text: str) -> dict[str, Any]:
    found = re.search(r'type="application/json">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def test_a_hundred_perturbations_and_two_thousand_genes_take_less_than_ten_megabytes(
    page: Path,
) -> None:
    found, shape = content_of(page), (100, 2000)
    rng = np.random.default_rng(0)
    large = {
        **found,
        "genes": [f"GENE{g}" for g in range(shape[1])],
        "perturbations": [f"P{p}" for p in range(shape[0])],
        "contexts": ["one"],
        "effect": packed(rng.normal(size=shape)),
        "measured": packed(rng.normal(size=shape)),
        "sd": packed_rates(rng.random(shape)),
        "lfsr": packed_rates(rng.random(shape)),
        "p_changed": packed_shares(rng.random(shape)),
    }
    large["plane"] = {**found["plane"], "after": packed(rng.normal(size=(100, 150, 2)))}
    assert len(render(large, "large")) < 10_000_000


def test_without_plotly_it_is_said_what_to_install(
    tiny_screen: ad.AnnData, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'celldit\[explore\]'"):
        cd.report.explore(tiny_screen, tiny_model, tmp_path / "page.html")


def test_what_cannot_be_shown_is_refused(
    tiny_screen: ad.AnnData, tiny_model: Any, tmp_path: Path
) -> None:
    def explore(adata: ad.AnnData = tiny_screen, name: str = "page.html", **options: Any) -> None:
        cd.report.explore(adata, tiny_model, tmp_path / name, **options)

    with pytest.raises(UnknownNameError, match="d9"):
        explore(contexts="d9")
    with pytest.raises(InputError, match=r"\.html"):
        explore(name="page.pdf")
    with pytest.raises(InputError, match="is not a query"):
        explore(targets={"mine": "nonsense =="})
    with pytest.raises(InputError, match="selects no cell"):
        explore(targets={"mine": "donor == 'd9'"})
    with pytest.raises(InputError, match="boolean mask"):
        explore(targets={"mine": np.zeros(3)})
    with pytest.raises(InputError, match="fewer than 20"):
        explore(targets={"mine": np.arange(480) < 10})
    with pytest.raises(InputError, match="add control cells"):
        explore(tiny_screen[(tiny_screen.obs["perturbation"] == "A").to_numpy()].copy())
    (tmp_path / "there.html").write_text("kept")
    with pytest.raises(FileError, match="exists"):
        explore(name="there.html")
    assert (tmp_path / "there.html").read_text() == "kept"
    assert not (tmp_path / "page.html").exists()


WAYS = (
    "from celldit.report.explore import explore; import celldit as cd",
    "import celldit as cd; explore = cd.report.explore; import celldit.report.explore.page",
    "from celldit.report import explore; import celldit as cd",
)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_import_it_gives_the_function(way):
    """Each in a process of its own, in which only what celldit imports is there before."""
    child = os.fork()
    if not child:
        try:
            for name in [name for name in sys.modules if name.split(".")[0] == "celldit"]:
                del sys.modules[name]
            exec(way + "; assert callable(explore) and explore is cd.report.explore", {})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
