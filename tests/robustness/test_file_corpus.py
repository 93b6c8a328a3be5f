"""Damaged and odd files: each is read, or refused in celldit's words."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from celldit import CellDiT
from celldit.data.labels.labels import canonical
from celldit.errors import CellditError, FileError, InputError
from celldit.io.files import read_h5ad
from celldit.tokenizers.gmt import read_gmt


@pytest.fixture
def written(tmp_path: Path) -> Path:
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, (30, 8)) + 1)
    obs = pd.DataFrame({"perturbation": pd.Categorical(["control", "A", "B"] * 10)})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(counts.astype(np.float32), obs=obs, uns={"list": ["a", "b"], "n": 1})
    adata.write_h5ad(tmp_path / "whole.h5ad")
    return tmp_path / "whole.h5ad"


def read_or_refuse(path: Path) -> bool:
    """Whether a file was read and set up; otherwise the refusal was celldit's own."""
    try:
        adata = read_h5ad(path)
        CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    except CellditError:
        return False
    return True


def test_truncated_h5ad(written: Path) -> None:
    whole = written.read_bytes()
    rng = np.random.default_rng(0)
    cut = written.with_name("cut.h5ad")
    for length in (0, 1, 8, 512, len(whole) - 1, *rng.integers(1, len(whole), 30)):
        cut.write_bytes(whole[:length])
        assert not read_or_refuse(cut), f"read although cut to {length} of {len(whole)} bytes"


def test_h5ad_with_changed_bytes(written: Path) -> None:
    whole = written.read_bytes()
    rng = np.random.default_rng(1)
    changed = written.with_name("changed.h5ad")
    outcomes = []
    for _ in range(25):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 20):
            damaged[at] = rng.integers(0, 256)
        changed.write_bytes(bytes(damaged))
        outcomes.append(read_or_refuse(changed))
    assert not all(outcomes)


def test_h5ad_without_one_part(written: Path) -> None:
    parts: list[str] = []
    with h5py.File(written) as file:
        file.visit(parts.append)
    assert len(parts) > 10
    for part in parts:
        lacking = written.with_name("lacking.h5ad")
        lacking.write_bytes(written.read_bytes())
        with h5py.File(lacking, "a") as file:
            del file[part]
        read_or_refuse(lacking)
        with h5py.File(written) as whole, h5py.File(lacking, "w") as file:
            for name in whole:
                whole.copy(name, file)
            for attribute in list(file[part].attrs):
                del file[part].attrs[attribute]
        read_or_refuse(lacking)


def test_columns_beyond_the_matrix(written: Path) -> None:
    """Read as they stand, they would reach into memory that belongs to something else."""
    with h5py.File(written, "a") as file:
        file["X/indices"][3] = 1_000_000
    with pytest.raises(
        FileError, match=r"\.h5ad: .* damaged, since an entry lies at position 1000000"
    ):
        read_h5ad(written)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x89HDF\r\n\x1a\n",
        b"PK\x03\x04",
        gzip.compress(b"x", mtime=0),
        b"gene,cell\n1,2\n",
    ],
)
def test_what_is_no_h5ad(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.h5ad").write_bytes(content)
    with pytest.raises(FileError, match=r"cannot be read as an AnnData"):
        read_h5ad(tmp_path / "odd.h5ad")


@given(content=st.binary(max_size=300) | st.text("AB\t\n\r \x00β,;", max_size=80).map(str.encode))
def test_any_bytes_as_gene_sets(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gmt"
    for stored in (content, gzip.compress(content), b"\x1f\x8b" + content):
        path.write_bytes(stored)
        try:
            sets = read_gmt(path)
        except CellditError as error:
            sets, said = {}, str(error)
        assert sets or str(path) in said
        if sets:
            assert all(name and genes and all(genes) for name, genes in sets.items())


GEARS_LIKE = ["A+ctrl", "ctrl+A", "ctrl", "A_B", "A|B", "A;B", "A,B", "A+B+C", "A + B", "+", "A+"]
GEARS_LIKE += ["++", " ", "", "A+A", "ctrl+ctrl", "NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", "1e+2"]


@pytest.mark.parametrize("label", GEARS_LIKE)
@pytest.mark.parametrize("sep", ["+", "_", "|", ", "])
def test_labels_of_other_tools(label: str, sep: str) -> None:
    try:
        found = canonical(label, sep, "ctrl")
    except InputError:
        found = None
    if found is None:
        assert any(not piece.strip() for piece in label.split(sep))
        return
    assert canonical(found, sep, "ctrl") == found
    assert found == "ctrl" or "ctrl" not in found.split(sep)


#: Run by a process of its own, which a crash would end.
READ_EVERYTHING = """
import sys, warnings
import anndata as ad, numpy as np
from scipy import sparse
from celldit.data.fields import Fields
from celldit.data.reading import read_any
from celldit.io.files import read_h5ad

warnings.filterwarnings("ignore")
whole, n, path = open(sys.argv[1], "rb").read(), int(sys.argv[2]), sys.argv[3]

def use(source):
    # Compiled code reads and writes where the numbers of rows and columns say.
    cells = read_any(source, Fields("perturbation")).take(slice(None))
    sparse.csc_matrix(cells.counts).sum(axis=0)

def backed():
    adata = ad.read_h5ad(path, backed="r")
    try:
        use(adata[3:150])
        use(adata)
    finally:
        adata.file.close()

for seed in range(n):
    rng, damaged = np.random.default_rng(seed), bytearray(whole)
    for at in rng.integers(0, len(whole), int(rng.integers(1, 21))):
        damaged[at] ^= int(rng.integers(1, 256))
    with open(path, "wb") as file:
        file.write(damaged)
    for read in (lambda: use(read_h5ad(path)), lambda: use(path), backed):
        try:
            read()
        except Exception:
            pass
print("read", n)
"""


def test_changed_bytes_crash_nothing(tmp_path: Path) -> None:
    """150 files with 1 to 20 changed bytes each, read into memory, by path and backed."""
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(2.0, (200, 30)) + 1)
    obs = pd.DataFrame({"perturbation": ["control", "A"] * 100}, index=np.arange(200).astype(str))
    adata = ad.AnnData(counts.astype(np.float32), obs=obs)
    adata.var_names = [f"gene{i}" for i in range(30)]
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    adata.write_h5ad(tmp_path / "whole.h5ad")
    paths = [str(tmp_path / "whole.h5ad"), "150", str(tmp_path / "changed.h5ad")]
    done = subprocess.run(
        [sys.executable, "-c", READ_EVERYTHING, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "read 150"
