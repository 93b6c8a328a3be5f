"""Old, odd, damaged and hostile files: read as anndata reads them, or refused when opened."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

import celldit as cd
from celldit.data import open_store
from celldit.data.cells import Cells
from celldit.data.disk.stored import StoredCells
from celldit.errors import CellditError, FileError
from celldit.io.files import read_h5ad

N = 40


def cells(dense: bool = False) -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, (N, 8)).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame(index=[f"c{i}" for i in range(N)])
    obs["perturbation"] = ["control", "A", "B", "A+B"] * (N // 4)
    obs["type"] = pd.Categorical(["T", "B cell"] * (N // 2), categories=["T", "B cell"])
    obs["batch"] = [1, 2] * (N // 2)
    obs["treated"] = [False, True, True, False] * (N // 4)
    var = pd.DataFrame(index=[f"g{i}" for i in range(8)])
    return ad.AnnData(counts if dense else sparse.csr_matrix(counts), obs=obs, var=var)


SETUP: dict[str, Any] = {"perturbation_key": "perturbation"}
COVARIATES = {"covariate_keys": ["type", "batch", "treated"]}


def coded(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    levels, codes = np.unique(values.astype(str), return_inverse=True)
    return levels.astype(object), codes.astype("i1")


def write_old_matrix(file: h5py.File, adata: ad.AnnData, *, h5sparse: bool) -> None:
    group = file.create_group("X")
    if h5sparse:
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", adata.shape
    else:
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
        group.attrs["shape"] = adata.shape
    for name in ("data", "indices", "indptr"):
        group.create_dataset(name, data=getattr(adata.X, name))


def write_06(path: Path, adata: ad.AnnData) -> None:
    """As anndata 0.6 wrote it: tables as records, categories in uns."""
    with h5py.File(path, "w") as file:
        write_old_matrix(file, adata, h5sparse=True)
        kinds = {"perturbation": "i1", "type": "i1", "batch": "i8", "treated": "?"}
        obs = np.empty(N, dtype=[("index", "S8"), *kinds.items()])
        obs["index"] = adata.obs_names.to_numpy(dtype="S8")
        for name, kind in kinds.items():
            obs[name] = coded(adata.obs[name])[1] if kind == "i1" else adata.obs[name]
            if kind == "i1":
                levels = coded(adata.obs[name])[0]
                file.create_dataset(
                    f"uns/{name}_categories", data=levels, dtype=h5py.string_dtype()
                )
        file.create_dataset("obs", data=obs)
        var = np.empty(adata.n_vars, dtype=[("index", "S8")])
        var["index"] = adata.var_names.to_numpy(dtype="S8")
        file.create_dataset("var", data=var)


def write_07(path: Path, adata: ad.AnnData, columns: tuple[str, ...]) -> None:
    """As anndata 0.7 wrote it: some columns as codes, with categories beside them."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        write_old_matrix(file, adata, h5sparse=False)
        obs = file.create_group("obs")
        obs.attrs["encoding-type"], obs.attrs["encoding-version"] = "dataframe", "0.1.0"
        obs.attrs["_index"] = "index"
        obs.attrs["column-order"] = np.array(list(adata.obs), dtype=object)
        obs.create_dataset("index", data=adata.obs_names.to_numpy(dtype=object), dtype=text)
        categories = obs.create_group("__categories")
        for name in adata.obs:
            if name in columns:
                levels, codes = coded(adata.obs[name])
                obs[name] = codes
                categories.create_dataset(name, data=levels, dtype=text)
                obs[name].attrs["categories"] = categories[name].ref
            elif adata.obs[name].dtype.kind in "ib":
                obs[name] = adata.obs[name].to_numpy()
            else:
                obs.create_dataset(
                    name, data=adata.obs[name].astype(str).to_numpy(object), dtype=text
                )
        var = file.create_group("var")
        var.attrs["encoding-type"], var.attrs["encoding-version"] = "dataframe", "0.1.0"
        var.attrs["_index"] = "index"
        var.attrs.create("column-order", np.array([], dtype=float))
        var.create_dataset("index", data=adata.var_names.to_numpy(dtype=object), dtype=text)


def write_today(path: Path, adata: ad.AnnData) -> None:
    adata.write_zarr(path) if path.suffix == ".zarr" else adata.write_h5ad(path)


WRITERS: dict[str, tuple[str, Callable[[Path, ad.AnnData], None]]] = {
    "0.6": ("old.h5ad", write_06),
    "0.7, types as codes": ("old.h5ad", lambda p, a: write_07(p, a, ("type",))),
    "0.7, all as codes": ("old.h5ad", lambda p, a: write_07(p, a, tuple(a.obs))),
    "0.7, nothing as codes": ("old.h5ad", lambda p, a: write_07(p, a, ())),
    "today": ("new.h5ad", write_today),
    "today, zarr": ("new.zarr", write_today),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_one_reader_for_memory_disk_and_terminal(tmp_path: Path, writer: str) -> None:
    name, write = WRITERS[writer]
    path, adata = tmp_path / name, cells()
    write(path, adata)
    cd.CellDiT.setup_anndata(adata, **SETUP, **COVARIATES)
    wanted = Cells.from_anndata(adata, cd.data.Fields.from_anndata(adata))
    found = [open_store(path, **SETUP, **COVARIATES).take(slice(None))]
    if path.suffix == ".h5ad":
        in_memory = read_h5ad(path)
        cd.CellDiT.setup_anndata(in_memory, **SETUP, **COVARIATES)
        fields = cd.data.Fields.from_anndata(in_memory)
        found.append(Cells.from_anndata(in_memory, fields))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backed = ad.read_h5ad(path, backed="r")
        found.append(cd.data.reading.read_any(backed, fields).take(slice(None)))
    for one in found:
        assert one.perturbations.tolist() == wanted.perturbations.tolist()
        assert one.contexts.tolist() == wanted.contexts.tolist()
        assert one.names.tolist() == wanted.names.tolist()
        assert one.genes == wanted.genes
        assert (one.counts != wanted.counts).nnz == 0
    assert wanted.contexts[:2].tolist() == ["T | 1 | False", "B cell | 2 | True"]


def opened(path: Path) -> StoredCells:
    return open_store(path, **SETUP, covariate_keys=["type"])


@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
@pytest.mark.parametrize("with_sizes", [False, True])
def test_a_missing_chunk_is_refused(tmp_path: Path, part: str, with_sizes: bool) -> None:
    adata = cells()
    adata.obs["sizes"] = np.asarray(adata.X.sum(axis=1)).ravel()
    path = tmp_path / "cells.zarr"
    adata.write_zarr(path)
    (path / "X" / part / "0").unlink()
    with pytest.raises(FileError, match=rf"X/{part} of .* lacks 1 of its parts"):
        open_store(path, **SETUP, size_factor_key="sizes" if with_sizes else None)


def test_a_missing_chunk_of_a_dense_matrix_is_refused(tmp_path: Path) -> None:
    adata = cells(dense=True)
    adata.obs["sizes"] = adata.X.sum(axis=1)
    path = tmp_path / "cells.zarr"
    adata.write_zarr(path, chunks=(20, 4))
    open_store(path, **SETUP, size_factor_key="sizes")
    (path / "X" / "1.0").unlink()
    with pytest.raises(FileError, match=r"cells from 20, genes from 0"):
        open_store(path, **SETUP, size_factor_key="sizes")


def test_chunks_of_zeros_may_be_left_out(tmp_path: Path) -> None:
    """zarr does not write them unless it is told to."""
    adata = cells(dense=True)
    adata.X[:, 4:] = 0
    adata.obs["type"] = pd.Categorical(["T"] * N)
    path = tmp_path / "cells.zarr"
    with zarr.config.set({"array.write_empty_chunks": False}):
        adata.write_zarr(path, chunks=(20, 4))
    assert opened(path).take(slice(None)).counts.sum() == adata.X.sum()


PARTS = """
X/indices X/indptr X/data X/.zattrs X/data/.zarray obs/.zattrs obs/type obs/type/.zattrs
obs/type/codes/0 obs/type/categories/0 obs/_index/0 var/_index var/_index/0 .zgroup obs/.zgroup
obs/perturbation/codes/0 var/.zattrs
"""


@pytest.fixture(scope="module", params=[False, True], ids=["", "consolidated"])
def whole_store(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[Path, Cells]:
    """A store that lacks nothing, with consolidated metadata or without, and its cells."""
    path, adata = tmp_path_factory.mktemp("whole") / "cells.zarr", cells()
    adata.strings_to_categoricals()
    adata.write_zarr(path)
    if not request.param:
        (path / ".zmetadata").unlink()
    return path, opened(path).take(slice(None))


@pytest.mark.parametrize("gone", PARTS.split())
def test_a_store_that_lacks_something_is_refused(
    tmp_path: Path, whole_store: tuple[Path, Cells], gone: str
) -> None:
    source, whole = whole_store
    path = shutil.copytree(source, tmp_path / "cells.zarr")
    consolidated = (path / ".zmetadata").exists()
    lost = path / gone
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    try:
        found = opened(path).take(slice(None))
    except CellditError:
        return
    # Its groups can be told from the consolidated metadata, or from what lies in them.
    assert lost.name.startswith(".z")
    assert consolidated or lost.name == ".zgroup"
    assert found.perturbations.tolist() == whole.perturbations.tolist()
    assert found.contexts.tolist() == whole.contexts.tolist()
    assert (found.counts != whole.counts).nnz == 0


@pytest.mark.parametrize(
    "gone", ["X/indices", "X/indptr", "X/data", "obs/type", "obs/_index", "var"]
)
@pytest.mark.parametrize("attribute", [False, True])
def test_a_file_that_lacks_something_is_refused(tmp_path: Path, gone: str, attribute: bool) -> None:
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    with h5py.File(path, "a") as file:
        if attribute:
            file[gone].parent.attrs.clear()
        else:
            del file[gone]
    for read in (opened, lambda p: cd.CellDiT.setup_anndata(read_h5ad(p), **SETUP)):
        try:
            read(path)
        except CellditError:
            continue
        assert attribute or read is not opened


def test_an_array_that_was_never_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    with h5py.File(path, "a") as file:
        size = file["X/data"].shape
        del file["X/data"]
        file["X"].create_dataset("data", shape=size, dtype="f4", chunks=(16,))
    with pytest.raises(FileError, match=r"X/data of .* lacks"):
        opened(path)


def link_out(path: Path, kind: str, secret: Path) -> None:
    with h5py.File(secret, "w") as file:
        file["text"] = np.array(["secret"] * N, dtype=object)
        file["text"].attrs["encoding-type"], file["text"].attrs["encoding-version"] = (
            "string-array",
            "0.2.0",
        )
        file["numbers"] = np.ones(N)
    with h5py.File(path, "a") as file:
        del file["obs/batch"]
        if kind == "external link":
            file["obs/batch"] = h5py.ExternalLink(str(secret), "/text")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=(N,), dtype="f8")
            layout[:] = h5py.VirtualSource(str(secret), "numbers", shape=(N,))
            file["obs"].create_virtual_dataset("batch", layout)
        else:
            file["obs"].create_dataset(
                "batch", shape=(N,), dtype="u1", external=[(str(secret), 0, N)]
            )


@pytest.mark.parametrize("kind", ["external link", "virtual", "external data"])
def test_links_out_of_a_file_are_not_followed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    link_out(path, kind, tmp_path / "secret.h5")
    for read in (
        lambda: open_store(path, **SETUP, covariate_keys=["batch"]),
        lambda: read_h5ad(path),
    ):
        with pytest.raises(FileError, match=r"points out of itself .at 'obs/batch'"):
            read()


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "cells.zarr"
    cells().write_zarr(path)
    moved = shutil.move(path / "X" / "data", tmp_path / "elsewhere")
    os.symlink(moved, path / "X" / "data")
    with pytest.raises(FileError, match=r"points out of itself .at 'X/data'"):
        opened(path)
    os.symlink(path, tmp_path / "whole.zarr")
    shutil.rmtree(tmp_path / "elsewhere")


def test_a_link_to_the_whole_is_followed(tmp_path: Path) -> None:
    for name in ("cells.zarr", "cells.h5ad"):
        write_today(tmp_path / name, cells())
        os.symlink(tmp_path / name, tmp_path / f"link-{name}")
        assert opened(tmp_path / f"link-{name}").n_cells == N


@pytest.mark.parametrize("where", ["cell", "gene", "label"])
def test_one_giant_name_neither_hangs_nor_takes_memory(tmp_path: Path, where: str) -> None:
    giant, adata = "-1_" * 3_000_000, cells()
    names = [giant, *[f"n{i}" for i in range(1, N)]]
    if where == "cell":
        adata.obs_names = names
    elif where == "gene":
        adata.var_names = names[: adata.n_vars]
    else:
        adata.obs["perturbation"] = ["control", giant, *["A"] * (N - 2)]
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    start, said = time.process_time(), [""]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (
            lambda: opened(path).take(slice(None)),
            lambda: cd.CellDiT(read_h5ad(path)),
            lambda: cd.pp.merge_guides(adata, "perturbation"),
            lambda: open_store(path, perturbation_key="perturbation", control=giant[:-1]),
            lambda: open_store(path, perturbation_key=giant),
        ):
            try:
                read()
            except CellditError as error:
                said.append(str(error))
    assert time.process_time() - start < 5
    assert max(map(len, said)) < 3000


def test_many_shards_take_few_descriptors(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    cells().write_h5ad(tmp_path / "cells.h5ad")
    for i in range(80):
        shutil.copy(tmp_path / "cells.h5ad", tmp_path / "store" / f"{i:03}.h5ad")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    at_hand = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (at_hand + 20, before[1]))
    try:
        store = open_store(tmp_path / "store", **SETUP)
        for block in store.blocks(500):
            assert block.counts.nnz
        assert len(os.listdir("/proc/self/fd")) <= at_hand + 5
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert store.n_cells == 80 * N


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5ad")
    for path in (tmp_path / "pipe.h5ad", Path("/dev/zero")):
        for read in (opened, read_h5ad):
            with pytest.raises(FileError, match="no plain file"):
                read(path)


PATHS = ["a\0b.h5ad", "x" * 5000 + ".h5ad", "d/" * 3000 + "a.h5ad", "", "."]


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_no_file_has(name: str) -> None:
    for read in (opened, read_h5ad, cd.CellDiT.load, cd.CellDiT):
        with pytest.raises(CellditError):
            read(name)


def test_an_array_that_says_to_be_larger_than_it_is(tmp_path: Path) -> None:
    """A changed byte in its shape, for which memory would be taken before anything is read."""
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    raw = path.read_bytes()
    shape = N.to_bytes(8, "little") * 2  # a dataspace: its size, and the most it can have
    assert shape in raw
    path.write_bytes(raw.replace(shape, (N + (1 << 29)).to_bytes(8, "little") * 2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (opened, read_h5ad):
        with pytest.raises(FileError, match="cannot be read as an AnnData"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def lengthened(path: Path, length: int) -> None:
    """Say of the last text of some length in the file that it has three billion letters."""
    raw = path.read_bytes()
    heaps = [at for at in range(len(raw)) if raw.startswith(b"GCOL", at)]
    found = [raw.rfind(struct.pack("<IQ", length, heap)) for heap in heaps]
    assert max(found) > 0
    path.write_bytes(raw[: max(found) + 3] + b"\xb0" + raw[max(found) + 4 :])


@pytest.mark.parametrize("where", ["array", "gzip", "text", "records", "attribute", "sequence"])
def test_a_length_that_no_text_has_is_refused_before_memory_is_taken(
    tmp_path: Path, where: str
) -> None:
    adata, path = cells(), tmp_path / "cells.h5ad"
    adata.obs_names = [f"{i:017}" for i in range(N)]
    adata.uns["text"] = "x" * 19
    adata.uns["records"] = np.array([("a", 1.0, "y" * 21)], [("a", "O"), ("b", "f8"), ("c", "O")])
    adata.write_h5ad(path)
    with h5py.File(path, "a") as file:
        file.attrs["note"] = "z" * 23
        if where == "gzip":
            names, kind = [f"{i:02}" for i in range(N)], h5py.string_dtype()
            packed = file["obs"].create_dataset("p", data=names, dtype=kind, compression="gzip")
            file.flush()
            values = bytearray(zlib.decompress(packed.id.read_direct_chunk((0,))[1]))
            values[3] = 0xB0
            packed.id.write_direct_chunk((0,), zlib.compress(bytes(values)))
        rows = file.create_dataset("rows", (1,), dtype=h5py.vlen_dtype(np.float64))
        rows[0] = np.ones(29)
    lengths = {"array": 17, "text": 19, "records": 21, "attribute": 23, "sequence": 29}
    if where in lengths:
        lengthened(path, lengths[where])
    start = time.process_time()
    for read in (lambda: opened(path), lambda: read_h5ad(path)):
        with pytest.raises(FileError, match="more than the whole file"):
            read()
    assert time.process_time() - start < 1


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize("version", ["earliest", "v110", "latest"])
def test_texts_of_right_files_stay_accepted(
    tmp_path: Path, compression: str | None, version: str
) -> None:
    adata, path = cells(), tmp_path / "cells.h5ad"
    adata.obs["note"] = ["", "β" * 70_000, *["x"] * (N - 2)]
    adata.uns["records"] = np.array([("a", 1.0, "b")], [("a", "O"), ("b", "f8"), ("c", "O")])
    adata.uns["alone"] = np.array(["one"], dtype=object)  # which lzf makes no smaller
    adata.write_h5ad(tmp_path / "plain.h5ad", compression=compression)
    with (
        h5py.File(tmp_path / "plain.h5ad") as plain,
        h5py.File(path, "w", libver=version) as file,
    ):
        for name in plain:
            plain.copy(name, file)
        file.attrs.update(plain.attrs)
        file.attrs.update({f"note {i}": "x" * i for i in range(20)})
        file.attrs.update({"notes": ["a", "bc"], "none": h5py.Empty("f4")})
        kind = h5py.string_dtype()
        obs = file["obs"]
        obs.create_dataset("sorted", data=["a", "bc"] * 9, dtype=kind, chunks=(7,), shuffle=True)
        obs.create_dataset("empty", (0,), dtype=kind, maxshape=(None,))
        obs.create_dataset("null", data=h5py.Empty(kind))
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space, text = h5py.h5s.create_simple((2,)), h5py.h5t.py_create(kind, logical=True)
        h5py.Dataset(h5py.h5d.create(obs.id, b"in", text, space, compact))[...] = ["abc", "d"]
    assert opened(path).n_cells == N
    assert read_h5ad(path).obs["note"].iloc[1] == "β" * 70_000
