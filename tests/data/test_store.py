"""Cells on disk are the cells in memory, whatever the file and the way of asking."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import celldit as cd
from celldit.data import Cells, CellStore, Fields, StoredCells
from celldit.data.disk import stored
from celldit.data.reading import read_set_up
from celldit.errors import FileError, InputError, UnknownNameError

KEYS = {"perturbation_key": "perturbation", "covariate_keys": ["donor", "batch"]}
MORE = {**KEYS, "time_key": "day", "size_factor_key": "umis"}


def set_up(make_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    adata = make_screen(n_cells=60)
    adata.obs["perturbation"] = adata.obs["perturbation"].astype("category")
    cd.CellDiT.setup_anndata(adata, **MORE)
    return adata


@pytest.fixture
def screen(make_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    return set_up(make_screen)


@pytest.fixture(scope="module", params=["h5ad", "zarr", "dense", "shards"])
def written(
    request: pytest.FixtureRequest, make_screen: Callable[..., ad.AnnData], tmp_path_factory: Any
) -> Path:
    """Where the cells lie that `stores` copies."""
    screen = set_up(make_screen)
    path: Path = tmp_path_factory.mktemp("written") / "screen.h5ad"
    if request.param == "zarr":
        path = path.with_suffix(".zarr")
        screen.write_zarr(path)
    elif request.param == "shards":
        path = path.with_name("shards")
        path.mkdir()
        screen[:25].copy().write_h5ad(path / "a.h5ad")
        screen[25:].copy().write_zarr(path / "b.zarr")
    else:
        screen.X = screen.X.toarray() if request.param == "dense" else screen.X
        screen.write_h5ad(path)
    return path


@pytest.fixture
def stores(written: Path, screen: ad.AnnData, tmp_path: Path) -> tuple:
    """Cells in memory, the same on disk, and where they lie; the test's own."""
    copy = shutil.copytree if written.is_dir() else shutil.copy
    path = copy(written, tmp_path / written.name)
    return Cells.from_anndata(screen, Fields.from_anndata(screen)), cd.open_store(path), path


def same(a: CellStore, b: CellStore) -> None:
    """Assert that two stores hold the same cells in the same order."""
    a, b = a.take(slice(None)), b.take(slice(None))
    assert isinstance(b, Cells)
    assert a.genes == b.genes
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(a.counts, name), getattr(b.counts, name))
    assert a.counts.dtype == b.counts.dtype == np.float32
    for name in ("size_factors", "perturbations", "contexts", "names", "times", "is_control"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.covariates.equals(b.covariates)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_whatever_is_asked_for_is_the_same_as_in_memory(stores: tuple, seed: int) -> None:
    cells, store, _ = stores
    rng = np.random.default_rng(seed)
    some = rng.integers(0, cells.n_cells, rng.integers(0, 40))  # any order, repetitions
    mask = rng.random(cells.n_cells) < 0.5
    for index in (slice(None), slice(3, 50, 7), some, mask):
        same(cells.take(index), store.take(index))
    same(cells.select(mask), store.select(mask))
    within = np.flatnonzero(rng.random(int(mask.sum())) < 0.5)
    same(cells.take(mask).take(within), store.select(mask).take(within))


def test_blocks_are_all_cells_in_order(stores: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, store, _ = stores
    monkeypatch.setattr(stored, "WINDOW_CELLS", 16)  # blocks of 7 then cross windows
    for a, b in zip(cells.blocks(7), store.blocks(7), strict=True):
        same(a, b)


def test_a_store_survives_pickling(stores: tuple) -> None:
    cells, store, _ = stores
    store.take(slice(0, 3))
    same(cells, pickle.loads(pickle.dumps(store)))


def test_identity_names_cells_and_their_order(stores: tuple) -> None:
    cells, store, _ = stores
    for one in (cells, store):
        names = {one.identity(), one.select(np.arange(30)).identity()}
        names |= {one.select(np.arange(30, 60)).identity()}
        assert len(names) == 3
        assert one.identity() == one.identity()


def test_genes_by_name(stores: tuple, screen: ad.AnnData) -> None:
    _, store, _ = stores
    genes = ["gene7", "gene0", "gene3"]
    same(Cells.from_anndata(screen, store.fields, genes=genes), store.with_genes(genes))
    same(
        Cells.from_anndata(screen, store.fields, genes=["gene3", "gene7"]),
        store.with_genes(genes).with_genes(["gene3", "gene7"]),
    )


def test_library_sizes_without_a_column(screen: ad.AnnData, tmp_path: Path) -> None:
    screen.write_h5ad(tmp_path / "a.h5ad")
    store = cd.open_store(tmp_path / "a.h5ad", **KEYS)
    cells = Cells.from_anndata(screen, store.fields)
    same(cells, store)
    genes = ["gene0", "gene5"]
    same(Cells.from_anndata(screen, store.fields, genes=genes), store.with_genes(genes))


def test_a_backed_anndata_keeps_its_own_columns(screen: ad.AnnData, tmp_path: Path) -> None:
    screen.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    backed.obs["perturbation"] = ["control", "Z"] * 30
    screen.obs["perturbation"] = ["control", "Z"] * 30
    cd.CellDiT.setup_anndata(backed, **MORE)
    store, fields = read_set_up(backed)
    assert isinstance(store, StoredCells)
    same(Cells.from_anndata(screen, fields), store)


# --- what goes wrong -------------------------------------------------------------------------


def test_shards_with_other_genes_are_named(screen: ad.AnnData, tmp_path: Path) -> None:
    screen.write_h5ad(tmp_path / "a.h5ad")
    other = screen[:, 1:].copy()
    other.var_names = [*other.var_names[:-1], "GFP"]
    other.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(InputError, match=r"b\.h5ad lacks 2 \('gene0', 'gene11'\).*'GFP'"):
        cd.open_store(tmp_path)
    screen[:, ::-1].copy().write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(InputError, match=r"b\.h5ad has them in another order"):
        cd.open_store(tmp_path)


def test_a_file_that_changes_is_refused(stores: tuple, screen: ad.AnnData) -> None:
    _, store, path = stores
    file = path / "a.h5ad" if path.name == "shards" else path
    changed = screen[: 25 if path.name == "shards" else None].copy()
    changed.X = changed.X * 2
    if file.suffix == ".zarr":
        shutil.rmtree(file)
        changed.write_zarr(file)
    else:
        file.unlink()
        changed.write_h5ad(file)
    with pytest.raises(FileError, match="changed while it was in use"):
        store.take(slice(0, 4))


def test_a_file_that_vanishes_is_refused(stores: tuple) -> None:
    _, store, path = stores
    store.take(slice(0, 4))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(FileError, match="vanished while it was in use"):
        store.take(slice(0, 4))


def test_a_chunk_that_vanishes_is_no_zero(screen: ad.AnnData, tmp_path: Path) -> None:
    screen.write_zarr(tmp_path / "a.zarr")
    store = cd.open_store(tmp_path / "a.zarr")
    data = tmp_path / "a.zarr" / "X" / "data"
    chunk = next(p for p in data.rglob("0") if p.is_file())
    chunk.unlink()
    with pytest.raises(FileError, match="changed while it was in use"):
        store.take(slice(None))


def test_files_that_cannot_be_used(screen: ad.AnnData, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="There is no"):
        cd.open_store(tmp_path / "nothing.h5ad")
    with pytest.raises(FileError, match="holds no"):
        cd.open_store(tmp_path)
    (tmp_path / "text.h5ad").write_text("no HDF5")
    with pytest.raises(FileError, match="cannot be read"):
        cd.open_store(tmp_path / "text.h5ad")
    screen.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(UnknownNameError, match="Did you mean 'perturbation'"):
        cd.open_store(tmp_path / "a.h5ad", perturbation_key="perturbations")
    with pytest.raises(UnknownNameError, match="layer"):
        cd.open_store(tmp_path / "a.h5ad", counts_layer="counts", **KEYS)
    with pytest.raises(InputError, match="control label"):
        cd.open_store(tmp_path / "a.h5ad", perturbation_key="perturbation", control="DMSO")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: setattr(a, "X", sparse.csc_matrix(a.X)), "by columns"),
        (lambda a: setattr(a, "X", a.X.astype(np.float32) * 0.5), "not whole numbers"),
        (lambda a: setattr(a, "X", a.X * -1), "negative"),
        (lambda a: setattr(a, "var_names", ["g"] * a.n_vars), "more than once"),
        (lambda a: a.uns.clear(), "does not say what its columns mean"),
    ],
)
def test_contents_that_cannot_be_used(
    screen: ad.AnnData, tmp_path: Path, spoil: Callable, message: str
) -> None:
    spoil(screen)
    screen.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match=message):
        cd.open_store(tmp_path / "a.h5ad")


@pytest.mark.parametrize("key", [None, 3])
def test_names_of_columns_are_text(stores: tuple, key: object) -> None:
    with pytest.raises(InputError, match=f"covariate_keys takes names .* as text, not {key}"):
        cd.open_store(stores[2], perturbation_key="perturbation", covariate_keys=["donor", key])


def test_empty_cells_are_found_in_their_shard(screen: ad.AnnData, tmp_path: Path) -> None:
    screen.write_h5ad(tmp_path / "a.h5ad")
    counts = screen.X.toarray()
    counts[5] = 0
    screen.X = sparse.csr_matrix(counts)
    screen.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(InputError, match=r"1 of 120 cells .*b\.h5ad"):
        cd.open_store(tmp_path, **KEYS)
