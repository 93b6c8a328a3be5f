"""The guides of the documentation run as printed, and name what there is."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
import scanpy as sc

mpl.use("Agg")

import matplotlib.pyplot as plt

import celldit as cd

from .neighbours import packages

DOCS = Path(__file__).resolve().parents[1] / "docs"
GALLERY = DOCS / "gallery.md"
GUIDES = [*sorted((DOCS / "guides").glob("*.md")), pytest.param(GALLERY, marks=pytest.mark.slow)]
LABELS = ("control", "STAT1", "IRF1", "JAK2", "IFNGR1")


def part(adata: ad.AnnData, n: int = 400) -> ad.AnnData:
    """Some cells, and of many genes some, so that a guide takes seconds."""
    if "STAT1" in set(adata.obs.get("perturbation", ())):
        adata = adata[adata.obs["perturbation"].isin(LABELS)]
    rows = np.random.default_rng(0).permutation(adata.n_obs)[:n]
    some = adata[np.sort(rows)].copy()
    return some[:, ::3].copy() if some.n_vars > 1000 else some


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs_as_printed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("papalexi", "kang", "reprogramming", "sciplex2"):
        some = part(getattr(cd.datasets, name)())
        monkeypatch.setattr(cd.datasets, name, some.copy)
    train = cd.CellDiT.train
    # Without an epoch there is no course to draw.
    quick: dict[str, Any] = {"max_epochs": int(page == GALLERY), "enable_progress_bar": False}
    monkeypatch.setattr(
        cd.CellDiT, "train", lambda model, **options: train(model, **{**options, **quick})
    )
    # As weighted without umap, which takes seconds to compile itself.
    monkeypatch.setattr(sc.pp, "neighbors", partial(sc.pp.neighbors, method="gauss"))
    monkeypatch.chdir(tmp_path)
    for name, package in packages().items():
        monkeypatch.setitem(sys.modules, name, package)
    rna = cd.datasets.papalexi()
    rna.obs = rna.obs.rename(columns={"perturbation": "gene"})
    names: dict[str, Any] = {"mdata": SimpleNamespace(mod={"rna": rna}, obs=rna.obs)}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    plt.close("all")
    assert isinstance(names["model"], cd.CellDiT)


def test_features_of_guides_suit_the_whole_screen() -> None:
    """Not only the few perturbations that the guides are run with above."""
    adata = cd.datasets.papalexi()
    adata = adata[~adata.obs["perturbation"].duplicated()].copy()
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["replicate"])
    calls = [
        call
        for page in (DOCS / "guides").glob("*.md")
        for call in re.findall(r"cd\.pp\.gene_features\(adata.*\)", page.read_text("utf-8"))
    ]
    assert len(calls) >= 2
    for call in calls:
        eval(call, {"cd": cd, "adata": adata})


@pytest.mark.parametrize("space", ["pp", "tl", "pl", "datasets"])
def test_the_reference_has_every_public_function(space: str) -> None:
    page = (DOCS / "api" / f"{space}.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   ([a-z_]\w*)$", page, re.MULTILINE)
    assert listed == list(getattr(cd, space).__all__)


def test_the_gallery_has_every_figure() -> None:
    text = GALLERY.read_text(encoding="utf-8")
    shown = re.findall(r"\]\(images/gallery/(\w+)\.png\)", text)
    assert sorted(shown) == sorted(cd.pl.__all__)
    assert all((DOCS / "images" / "gallery" / f"{name}.png").exists() for name in shown)
