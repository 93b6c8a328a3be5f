"""The report: one file without a network, numbers that agree, labels that cannot inject."""

from __future__ import annotations

import html.parser
import json
import re
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.errors import FileError, InputError, UnknownNameError
from celldit.report import report
from celldit.report.numbers import measure
from celldit.report.page import render
from celldit.report.pictures import condition_pictures

HOSTILE = "<img src=x onerror=alert(1)>"
QUICK = {"n_repeats": 1, "n_resamples": 2, "n_perturbations": 1, "basis": "pca"}


@pytest.fixture(scope="module")
def screen(simulate_screen) -> ad.AnnData:
    """Cells enough for halves of halves."""
    adata = simulate_screen(n_cells=1500)
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["donor"]
    )
    return adata


def halves(screen: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData, ad.AnnData]:
    """A random half of the cells as a prediction of the rest; the controls."""
    is_control = (screen.obs["perturbation"] == "control").to_numpy()
    perturbed = np.random.default_rng(0).permutation(np.flatnonzero(~is_control))
    predicted = screen[perturbed[::2]].copy()
    predicted.layers["counts"] = predicted.X.copy()
    predicted.uns["celldit"] = {**predicted.uns["celldit"], "sampler": "transport"}
    return predicted, screen[perturbed[1::2]].copy(), screen[is_control].copy()


class Structure(html.parser.HTMLParser):
    """Tags, and what they would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "img", "image", "link", "br"):
            self.open.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data") and v]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(text: str) -> Structure:
    found = Structure()
    found.feed(text)
    assert not found.open
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory, screen) -> tuple[Path, pd.DataFrame]:
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    screen = screen.copy()
    # A label that is markup, and one that matplotlib would take for mathematics.
    screen.obs["perturbation"] = (
        screen.obs["perturbation"].astype(str).replace({"A": HOSTILE, "B": "$x", "A+B": "C+D"})
    )
    screen.var_names = ["$g_1$", "<b>g</b>", *screen.var_names[2:]]
    predicted, truth, control = halves(screen)
    before = predicted.copy(), truth.copy(), control.copy()
    effects = pd.DataFrame(
        {
            "perturbation": "$x",
            "context": "d1",
            "gene": screen.var_names,
            "log_fold_change": 0.0,
            "sd": 0.3,
        }
    )
    table = cd.tl.report(
        predicted,
        truth,
        control,
        path,
        name="half & half",
        baselines={"<i>same</i>": predicted},
        effects=effects,
        **{**QUICK, "n_perturbations": 3},
    )
    for after, copy in zip((predicted, truth, control), before, strict=True):
        assert after.obs.equals(copy.obs)
        assert list(after.uns) == list(copy.uns)
        assert list(after.layers) == list(copy.layers)
    return path, table


def test_the_page_needs_nothing_from_elsewhere(written):
    text = written[0].read_text(encoding="utf-8")
    found = parse(text)
    assert not found.tags & {"script", "link", "iframe", "object", "embed"}
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert {"svg", "table", "figure"} <= found.tags
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_labels_are_text_wherever_they_stand(written):
    text = written[0].read_text(encoding="utf-8")
    found = parse(text)
    assert "img" not in found.tags
    assert "i" not in found.tags
    assert "b" not in found.tags
    everything = "".join(found.text)
    for label in (HOSTILE, "$x", "half & half", "<i>same</i>"):
        assert label in everything


def test_csv_json_page_and_table_hold_the_same_numbers(written):
    path, table = written
    csv = pd.read_csv(path.with_suffix(".csv"), keep_default_na=False, na_values=[""])
    content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    pd.testing.assert_frame_equal(csv, table, check_dtype=False, check_exact=False)
    assert len(content["table"]) == len(table)
    assert table.attrs["files"] == [str(path.with_suffix(s)) for s in (".html", ".csv", ".json")]
    assert set(table["method"]) == {"half & half", "no change", "<i>same</i>", "ceiling"}
    own = table[(table["method"] == "half & half") & (table["metric"] == "nmse")]
    shown = "".join(parse(path.read_text(encoding="utf-8")).text)
    for row in own.itertuples():
        assert row.low <= row.value <= row.high
        assert f"{row.value:.3f} [" in shown
    summary = {row["method"]: row for row in content["summary"]}
    assert summary["half & half"]["nmse"] == pytest.approx(own["value"].mean())
    assert summary["no change"]["nmse"] == pytest.approx(1.0, abs=1e-6)
    assert content["made_by"]["sampler"] == "transport"
    assert not list(path.parent.glob(".*"))


def test_numbers_are_those_of_evaluate(screen):
    predicted, truth, control = halves(screen)
    numbers = measure(
        predicted,
        truth,
        control,
        name="p",
        baselines={},
        metrics=["nmse", "energy"],
        n_repeats=1,
        n_resamples=0,
        min_cells=10,
        seed=0,
    )
    plain = cd.tl.evaluate(predicted, truth, control, metrics=["nmse", "energy"])
    own = numbers.table[(numbers.table["method"] == "p")]
    own = own[own["metric"].isin(["nmse", "energy"])]
    np.testing.assert_array_equal(own["value"], plain["value"])
    assert own["low"].isna().all()
    # Half of the cells predict the other half about as well as a quarter does.
    assert numbers.scores["nmse"] == pytest.approx(1.0, abs=0.3)
    text = render(
        numbers, title="t", overview=None, conditions=[], effects={}, calibration=None, made="m"
    )
    assert "better" in text.lower()


def test_every_measure_that_is_lost_is_named_at_the_top(screen):
    """Labels shuffled, beside the same prediction with its labels."""
    predicted, truth, control = halves(screen)
    mixed = predicted.copy()
    mixed.obs["perturbation"] = np.random.default_rng(0).permutation(predicted.obs["perturbation"])
    numbers = measure(
        mixed,
        truth,
        control,
        name="mixed",
        baselines={"right": predicted},
        metrics=["nmse", "cosine", "mmd"],
        n_repeats=1,
        n_resamples=0,
        min_cells=10,
        seed=0,
    )
    page = render(
        numbers, title="t", overview=None, conditions=[], effects={}, calibration=None, made="m"
    )
    shown = "".join(parse(page).text)
    assert "Of all 3 measures it is better in 0; not in cosine (right), mmd (right)." in shown
    assert re.search(r"with a score below 0, in: nmse \S\d+\.\d+, cosine \S\d+\.\d+, mmd", shown)


def test_what_is_not_scored_or_not_predicted_is_said(screen, tmp_path):
    predicted, truth, control = halves(screen)
    drop = (truth.obs["perturbation"] == "A") & (truth.obs["donor"] == "d1")
    few = truth[(~drop) | (np.cumsum(drop) <= 4)].copy()
    some = predicted[predicted.obs["perturbation"].isin(["A", "B"]).to_numpy()].copy()
    table = report(some, few, control, tmp_path / "r.html", metrics=["nmse"], **QUICK)
    text = "".join(parse((tmp_path / "r.html").read_text(encoding="utf-8")).text)
    assert "A in d1: 4 measured cells" in text
    assert "5 of 6 predicted conditions are scored" in text
    assert "Measured but not predicted: A+B in d1" in text
    own = table[(table["method"] == "prediction") & (table["metric"] == "nmse")]
    assert own["value"].isna().sum() == 1
    assert len(own) == 6


def test_files_are_not_overwritten_unless_asked(screen, tmp_path):
    sides = halves(screen)
    path = tmp_path / "r.html"
    path.with_suffix(".csv").write_text("mine")
    with pytest.raises(FileError, match=r"r\.csv' exists already.*overwrite=True"):
        report(*sides, path, **QUICK)
    assert [p.name for p in tmp_path.iterdir()] == ["r.csv"]
    assert path.with_suffix(".csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"path": "r.txt"}, InputError, r"must end in \.html"),
        ({"name": "ceiling"}, InputError, "names of their own"),
        ({"n_repeats": 0}, InputError, "n_repeats"),
        ({"basis": "tsne"}, UnknownNameError, "basis 'tsne'.*known: 'effect', 'pca', 'umap'"),
        ({"metrics": ["nmsee"]}, UnknownNameError, "Did you mean 'nmse'"),
        ({"min_cells": 10_000}, InputError, "No condition can be scored"),
    ],
)
def test_bad_input(change, error, text, screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=text):
        report(*halves(screen), **{**QUICK, **change})
    assert not list(tmp_path.iterdir())


def test_a_report_of_nothing_that_was_measured(screen, tmp_path):
    predicted, truth, control = halves(screen)
    measured = truth[truth.obs["donor"] == "d1"].copy()
    other = predicted[predicted.obs["donor"] == "d2"].copy()
    with pytest.raises(InputError, match=r"Nothing that was predicted was measured.*compare obs"):
        report(other, measured, control, tmp_path / "r.html", **QUICK)
    assert not list(tmp_path.iterdir())


def test_the_page_opens_with_one_sentence_that_can_be_acted_on(screen, tmp_path):
    predicted, truth, _ = halves(screen)
    here = predicted[predicted.obs["donor"] == "d1"].copy()
    # The whole screen holds the controls, and what other donors did, to fit baselines on.
    report(here, truth, screen, tmp_path / "r.html", name="half", baselines=True, **QUICK)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    said = re.search(r"<p class='verdict'>(.*?)</p>", page)[1]
    assert re.match(r"half closes \d+% of the way from no change to a replicate \(90% of", said)
    assert re.search("(ahead of|behind) the best of the others", said)
    # The sentence, one picture, and then the tables.
    assert page.index("class='verdict'") < page.index("<svg") < page.index("<table")
    content = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert {"half", "mean shift", "nearest"} <= set(content["closed"])
    assert content["closed"]["half"]["share"] > content["closed"]["mean shift"]["share"]
    low, high = content["closed"]["half"]["low"], content["closed"]["half"]["high"]
    assert low < content["closed"]["half"]["share"] < high


def test_what_is_worse_than_no_change_is_named_in_the_verdict(screen, tmp_path):
    predicted, truth, control = halves(screen)
    turned = predicted.copy()
    swap = {"A": "B", "B": "A"}
    turned.obs["perturbation"] = [swap.get(p, p) for p in predicted.obs["perturbation"].astype(str)]
    report(turned, truth, control, tmp_path / "r.html", name="mixed up", **QUICK)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    said = re.search(r"<p class='verdict'>(.*?)</p>", page)[1]
    assert "worse than no change for" in said
    assert " in d" in said


def test_rows_of_all_panels_are_sorted_alike(screen):
    predicted, truth, control = halves(screen)
    numbers = measure(
        predicted, truth, control, name="half", baselines={}, metrics=None, n_repeats=1,
        n_resamples=0, min_cells=10, seed=0,
    )  # fmt: skip
    pictures = condition_pictures(numbers)
    assert len(pictures) == 3
    names = [re.findall(r">([AB+]+ in d\d)<", picture.svg) for picture in pictures]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) > 3


def test_what_was_in_training_is_said_beside_the_verdict(screen, written, tmp_path):
    predicted, truth, control = halves(screen)
    predicted.obs["extrapolation"] = np.where(predicted.obs["donor"] == "d1", "seen", "new context")
    report(predicted, truth, control, tmp_path / "r.html", name="half", metrics="nmse", **QUICK)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    content = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert content["in_training"] == ["A in d1", "A+B in d1", "B in d1", "C in d1"]
    note = "In training: A in d1, A+B in d1, B in d1 and 1 more. Unless the cells that judge"
    assert page.index("class='verdict'") < page.index(note) < page.index("<svg")
    assert "In training" not in written[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("turned", ["predicted", "control", "baselines['same']"])
def test_genes_in_another_order_are_noted_once(turned, screen, tmp_path):
    parts = dict(zip(("predicted", "truth", "control"), halves(screen), strict=True))
    parts["baselines['same']"] = parts["predicted"]
    parts[turned] = parts[turned][:, ::-1].copy()
    same = parts.pop("baselines['same']")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report(
            **parts,
            path=tmp_path / "r.html",
            baselines={"same": same},
            metrics=["nmse", "energy", "discrimination"],
            **QUICK,
        )
    noted = [str(w.message) for w in caught if "another order" in str(w.message)]
    assert len(noted) == 1
    assert noted[0].startswith(f"The genes of {turned} are in another order than those of truth")


def test_an_error_names_the_baseline_that_is_wrong(screen, tmp_path):
    predicted, truth, control = halves(screen)
    spoilt = predicted.copy()
    spoilt.layers["counts"] = spoilt.layers["counts"].astype(float) * np.nan
    with pytest.raises(InputError, match=r"baselines\['bad'\]\.layers\['counts'\] has"):
        report(predicted, truth, control, tmp_path / "r.html", baselines={"bad": spoilt})


@pytest.mark.parametrize("n_genes", [2, 3])
def test_a_panel_of_few_genes_has_a_report(n_genes, simulate_screen, tmp_path):
    adata = simulate_screen(n_cells=300, n_genes=n_genes)
    adata = adata[np.asarray(adata.X.sum(axis=1)).ravel() > 0].copy()
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    predicted, truth, control = halves(adata)
    path = tmp_path / "report.html"
    report(predicted, truth, control, path, metrics="nmse", **QUICK)
    assert path.read_text("utf-8").count("<figure") >= 4


def test_genes_are_written_by_their_symbols_in_pictures(screen, tmp_path):
    coded = []
    for adata in halves(screen):
        adata.var["symbol"] = [f"SYMBOL{i}" for i in range(adata.n_vars)]
        adata.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
        coded.append(adata)
    report(*coded, tmp_path / "report.html", metrics="nmse", **QUICK)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "SYMBOL" in page
    assert "ENSG0" not in page
