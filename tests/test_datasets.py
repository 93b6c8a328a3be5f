from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from celldit import datasets
from celldit.errors import FileError, UnknownNameError

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {
    "papalexi": (16192, 299, {"perturbation", "replicate", "grna", "total_umis"}),
    "kang": (2800, 2000, {"condition", "cell_type", "total_umis"}),
    "norman": (3175, 500, {"perturbation", "total_umis"}),
    "baron": (1937, 2000, {"cell_type", "total_umis"}),
    "reprogramming": (1000, 1479, {"day", "cell_type"}),
    "sciplex2": (500, 198, {"perturbation", "dose_um", "replicate", "total_umis"}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_loader_gives_raw_counts_with_a_source(name):
    adata = getattr(datasets, name)()
    n_cells, n_genes, columns = SHAPES[name]
    assert adata.shape == (n_cells, n_genes)
    assert set(adata.obs) == columns
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.int32
    assert adata.X.min() == 0
    assert re.search(r"GSE\d+.*\((MIT|BSD-3-Clause|Apache-2.0)\)", adata.uns["source"])
    assert f"{n_cells:,} cells x {n_genes:,} genes" in getattr(datasets, name).__doc__


def test_each_call_gives_a_fresh_object():
    first = datasets.sciplex2()
    first.X.data[:] = 7
    first.obs["perturbation"] = "changed"
    again = datasets.sciplex2()
    assert (again.X.data != 7).any()
    assert set(again.obs["perturbation"]) == {"control", "dexamethasone"}


@pytest.mark.parametrize(("name", "n_sets"), [("hallmark", 50), ("reactome", 1499)])
def test_gene_sets_can_be_read(name, n_sets):
    with gzip.open(datasets.gene_set_file(name), "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    assert len(rows) == n_sets
    assert all(len(row) > 2 for row in rows)


def test_unknown_names_show_the_known_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'papalexi'"):
        datasets.load("papalexy")
    with pytest.raises(UnknownNameError, match="'hallmark', 'reactome'"):
        datasets.gene_set_file("kegg")


def test_missing_file_is_an_error_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.resources, "files", lambda _: tmp_path / "celldit")
    with pytest.raises(FileError, match=r"kang_ifnb\.h5ad is not installed"):
        datasets.kang()


def test_folder_is_documented_and_small():
    text = (ROOT / "data" / "README.md").read_text()
    sums = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", text, flags=re.M))
    files = [path for path in (ROOT / "data").iterdir() if path.name != "README.md"]
    assert {hashlib.sha256(p.read_bytes()).hexdigest(): p.name for p in files} == sums
    assert sum(path.stat().st_size for path in files) < 6_000_000
    assert max(path.stat().st_size for path in files) < 3_000_000


def test_a_changed_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    whole = (ROOT / "data" / "kang_ifnb.h5ad").read_bytes()
    (tmp_path / "data" / "kang_ifnb.h5ad").write_bytes(whole[:-1] + b"x")
    monkeypatch.setattr(datasets.resources, "files", lambda _: tmp_path / "celldit")
    with pytest.raises(FileError, match="SHA-256 differs"):
        datasets.kang()


def test_check_sums_of_the_code_are_those_of_the_readme():
    text = (ROOT / "data" / "README.md").read_text()
    sums = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", text, flags=re.M))
    assert {name: digest for digest, name in sums.items()} == datasets._SHA256
