"""Of files: stores, models, checkpoints, gene sets, settings, and where things are written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
from scipy import sparse

import celldit as cd
from celldit.cli.settings import TrainSettings
from celldit.io.files import read_h5ad, refuse_existing, write_h5ad
from celldit.tokenizers import GeneSets, read_gmt
from celldit.training import TrainingConfig

from .case import ARGUMENTS, SETUP, Case, Scope, arguments

TINY = {"max_epochs": 0, "enable_progress_bar": False}


def opened(path: Path, **options: Any) -> Any:
    return cd.open_store(path, **{**SETUP, **options}).take(slice(0, 5))


def written(s: Scope, change: Callable[[h5py.File], Any] = lambda file: None) -> Path:
    """The cells of a scope in a file that may be damaged."""
    path = s.folder / "a.h5ad"
    s.adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def outside(file: h5py.File) -> None:
    file["X/indices"][3] = 10**6


def as_columns(file: h5py.File) -> None:
    file["X"].attrs["encoding-type"] = "csc_matrix"


def cut_data(file: h5py.File) -> None:
    values = file["X/data"][:-5]
    del file["X/data"]
    file["X/data"] = values


def unwritten(file: h5py.File) -> None:
    n = len(file["X/data"])
    del file["X/data"]
    file["X"].create_dataset("data", (n,), "f4", chunks=(n,))


def linked(file: h5py.File) -> None:
    file["elsewhere"] = h5py.ExternalLink("other.h5ad", "/X")


def short_column(file: h5py.File) -> None:
    values = file["obs/donor/codes"][:-5]
    del file["obs/donor/codes"]
    file["obs/donor/codes"] = values


def fewer_cells(file: h5py.File) -> None:
    file["X"].attrs["shape"] = [10, 40]
    values = file["X/indptr"][:11]
    del file["X/indptr"]
    file["X/indptr"] = values


def lost_codes(file: h5py.File) -> None:
    n = len(file["obs/donor/codes"])
    del file["obs/donor/codes"]
    codes = file["obs/donor"].create_dataset("codes", (n,), "i1", chunks=(n,))
    codes.attrs["encoding-type"], codes.attrs["encoding-version"] = "array", "0.2.0"


def categorical(s: Scope) -> Scope:
    s.adata.obs["donor"] = s.adata.obs["donor"].astype("category")
    return s


def dense_with_a_hole(s: Scope) -> Path:
    s.adata.X = s.adata.X.toarray()
    path = s.folder / "a.zarr"
    s.adata.write_zarr(path, chunks=(240, 40))
    chunks = [p for p in (path / "X").rglob("*") if p.is_file() and "zarr" not in p.name
              and not p.name.startswith(".")]  # fmt: skip
    chunks[-1].unlink()
    return path


def again(s: Scope) -> Any:
    """Write the cells again, and read them."""
    s.adata.X = sparse.csr_matrix(s.adata.X)
    s.adata.write_h5ad(s.folder / "again.h5ad")
    return opened(s.folder / "again.h5ad")


def shards(s: Scope, change: Callable[[ad.AnnData], ad.AnnData]) -> Path:
    folder = s.folder / "store"
    folder.mkdir(exist_ok=True)
    s.adata[:100].copy().write_h5ad(folder / "0.h5ad")
    change(s.adata[100:].copy()).write_h5ad(folder / "1.h5ad")
    return folder


def changed_in_use(s: Scope) -> Any:
    path = written(s)
    store = cd.open_store(path, **SETUP)
    os.utime(path, ns=(1, 1))
    return store.take(slice(0, 5))


def saved(s: Scope, change: Callable[[Path], Any] = lambda folder: None) -> Path:
    folder = s.folder / "model"
    if not folder.exists():
        s.model.save(folder)
    change(folder)
    return folder


def config(**entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def bytes_of(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def link_config(folder: Path) -> None:
    (folder / "config.json").rename(folder / "real.json")
    (folder / "config.json").symlink_to(folder / "real.json")


def copied_again(s: Scope) -> Any:
    shutil.rmtree(s.folder / "model")
    return cd.CellDiT.load(saved(s))


def text(s: Scope, content: str | bytes, name: str = "sets.gmt") -> Path:
    path = s.folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def settings(s: Scope, content: str | bytes) -> Any:
    return TrainSettings.from_toml(text(s, content, "settings.toml"))


def cut(s: Scope) -> Path:
    """A file whose second half was never copied."""
    whole = written(s)
    part = s.folder / "part.h5ad"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return part


def copied(s: Scope) -> Path:
    return Path(shutil.copy(s.folder / "a.h5ad", s.folder / "part.h5ad"))


GMT = "ONE\thttp://x\tgene1\tgene2\tgene3\nTWO\thttp://x\tgene4\tgene5\n"


def train(s: Scope, folder: str = "steps", **options: Any) -> Any:
    adata = s.adata
    model = s.once("untrained", lambda: cd.CellDiT(adata, "modules", "pca"))
    chosen = {"config": TrainingConfig(new_cells=False, n_trials=1, flow_steps_per_epoch=1)}
    return model.train(checkpoint_dir=s.folder / folder, **{**TINY, **chosen, **options})


def unwritable(s: Scope) -> Path:
    """A folder in which nothing can be made, whoever asks: there is a file in its place."""
    (s.folder / "file").write_text("")
    return s.folder / "file" / "below"


def evil(s: Scope) -> Path:
    path = s.folder / "pipe"
    if not path.exists():
        os.mkfifo(path)
    return path


def predict(s: Scope, **options: Any) -> Any:
    return s.model.predict(s.few, perturbations="A", n_steps=1, **options)


# fmt: off
CASES: dict[str, Case] = {
    # --- paths
    "a path that is a number": Case(
        lambda s: cd.open_store(3), r"such as 'folder/name'", lambda s, m: opened(written(s))),
    "a path with a NUL": Case(
        lambda s: cd.open_store("a\0b"), "cannot be one", lambda s, m: opened(written(s))),
    "a path too long": Case(
        lambda s: cd.open_store("a" * 5000), "is too long for a file's name",
        lambda s, m: opened(written(s))),
    "a pipe": Case(lambda s: cd.open_store(evil(s)), "name a file",
                   lambda s, m: opened(written(s))),
    "no store": Case(lambda s: opened(s.folder / "gone"), "check the path",
                     lambda s, m: opened(written(s))),
    "an empty folder": Case(lambda s: opened(s.folder), "check the path",
                            lambda s, m: (written(s), opened(s.folder))),
    "no h5ad": Case(lambda s: read_h5ad(s.folder / "gone"), "check the path",
                    lambda s, m: read_h5ad(written(s))),
    "an h5ad whose entries lie outside": Case(
        lambda s: read_h5ad(written(s, outside)), "h5ad: .* write it again from the data",
        lambda s, m: read_h5ad(written(s))),
    "a folder as h5ad": Case(lambda s: read_h5ad(s.folder), "where an .h5ad file is needed",
                             lambda s, m: read_h5ad(written(s))),
    "an h5ad of something else": Case(
        lambda s: read_h5ad(text(s, "no")), "write it again with anndata",
        lambda s, m: read_h5ad(written(s))),
    "an h5ad that was cut on the way": Case(
        lambda s: read_h5ad(cut(s)), "write it again with anndata, or copy it again",
        lambda s, m: read_h5ad(copied(s))),
    # --- stores
    "a store that says nothing": Case(
        lambda s: (s.adata.uns.clear(), cd.open_store(written(s))),
        r"use cd\.open_store\(path, perturbation_key=", lambda s, m: opened(written(s))),
    "a store by columns": Case(
        lambda s: opened(written(s, as_columns)),
        "convert it with scipy.sparse.csr_matrix, and write it again", lambda s, m: again(s)),
    "a store of text": Case(
        lambda s: opened(written(s, lambda f: (f["X"].__delitem__("data"), f["X"].__setitem__(
            "data", np.array(["a"] * len(f["X/indices"]), dtype="S1"))))), "not numbers",
        lambda s, m: again(s)),
    "a store without X": Case(
        lambda s: (s.adata.layers.update(umis=s.adata.X), opened(written(s, lambda f:
                                                                        f.__delitem__("X")))),
        r"name the layer of counts with counts_layer=",
        lambda s, m: opened(s.folder / "a.h5ad", counts_layer="umis")),
    "a layer that the store lacks": Case(
        lambda s: (s.adata.layers.update(umis=s.adata.X), opened(written(s), counts_layer="umi")),
        "Did you mean '(?P<name>[^']+)'",
        lambda s, m: opened(s.folder / "a.h5ad", counts_layer=m["name"])),
    "a column that the store lacks": Case(
        lambda s: opened(written(s), covariate_keys=["doner"]), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: opened(s.folder / "a.h5ad", covariate_keys=[m["name"]])),
    "values and columns of other numbers": Case(
        lambda s: opened(written(s, cut_data)), "write it again from the data",
        lambda s, m: again(s)),
    "a part that was never written": Case(
        lambda s: opened(written(s, unwritten)), "copy or write it again", lambda s, m: again(s)),
    "a link out of the file": Case(
        lambda s: opened(written(s, linked)), "copy what it points at into it, and write it again",
        lambda s, m: again(s)),
    "a column of another length": Case(
        lambda s: opened(written(categorical(s), short_column)), "write it again",
        lambda s, m: again(s)),
    "a column without codes": Case(
        lambda s: opened(written(categorical(s), lost_codes)), "copy or write it again",
        lambda s, m: again(s)),
    "fewer counts than cells": Case(
        lambda s: opened(written(s, fewer_cells)), "write it again", lambda s, m: again(s)),
    "a dense part that is lost": Case(
        lambda s: opened(dense_with_a_hole(s), size_factor_key=None), "write it again|remove them",
        lambda s, m: again(s)),
    "a damaged store": Case(
        lambda s: opened(written(s, lambda f: f["obs"].attrs.__delitem__("_index"))),
        "write it again with anndata", lambda s, m: again(s)),
    "an empty store": Case(
        lambda s: (setattr(s, "adata", s.adata[:0].copy()), opened(written(s))), "has no cells",
        lambda s, m: None),
    "cells of a store without counts": Case(
        lambda s: (s.adata.X.data.__setitem__(slice(0, s.adata.X.indptr[3]), 0),
                   opened(written(s))),
        "remove them with sc.pp.filter_cells",
        lambda s, m: (setattr(s, "adata", s.adata[3:].copy()), again(s))),
    "shards of other genes": Case(
        lambda s: opened(shards(s, lambda a: a[:, 1:].copy())),
        r"Write it again as adata\[:, genes\]",
        lambda s, m: (setattr(s, "adata", s.adata[:, 1:].copy()),
                      opened(shards(s, lambda a: a)))),
    "a file that changes in use": Case(
        changed_in_use, "leave it as it is until training is over, and open it again",
        lambda s, m: opened(s.folder / "a.h5ad")),
    # --- model folders
    "no model": Case(lambda s: cd.CellDiT.load(s.folder / "gone"), "check the path to the folder",
                     lambda s, m: cd.CellDiT.load(saved(s))),
    "no model in a folder": Case(
        lambda s: cd.CellDiT.load(saved(s, without("vocab.json"))), "it has no vocab.json",
        lambda s, m: copied_again(s)),
    "a link in a model": Case(
        lambda s: cd.CellDiT.load(saved(s, link_config)), "copy the file itself into the folder",
        lambda s, m: (shutil.move(s.folder / "model" / "real.json",
                                  s.folder / "model" / "config.json"),
                      cd.CellDiT.load(s.folder / "model"))),
    "a model of another format": Case(
        lambda s: cd.CellDiT.load(saved(s, config(format=99))), "save the model again with this",
        lambda s, m: copied_again(s)),
    "a model with damaged JSON": Case(
        lambda s: cd.CellDiT.load(saved(s, bytes_of("config.json", b"{"))), "copy the model again",
        lambda s, m: copied_again(s)),
    "a model with JSON of another kind": Case(
        lambda s: cd.CellDiT.load(saved(s, bytes_of("config.json", b"[]"))), "copy the model again",
        lambda s, m: copied_again(s)),
    "a model with huge JSON": Case(
        lambda s: cd.CellDiT.load(saved(s, bytes_of("config.json", b" " * 70_000_000))),
        "copy the model again", lambda s, m: copied_again(s)),
    "a model with damaged weights": Case(
        lambda s: cd.CellDiT.load(saved(s, bytes_of("weights.safetensors", b"x" * 99))),
        "copy the model again", lambda s, m: copied_again(s)),
    "a model that does not fit together": Case(
        lambda s: cd.CellDiT.load(saved(s, config(latent=3))), "copy the model again",
        lambda s, m: copied_again(s)),
    "a model in the way": Case(
        lambda s: s.model.save(saved(s)), "pass " + ARGUMENTS,
        lambda s, m: s.model.save(s.folder / "model", **arguments(m))),
    "something else in the way": Case(
        lambda s: (text(s, "x", "mine"), s.model.save(s.folder / "mine", overwrite=True)),
        "choose another path", lambda s, m: s.model.save(s.folder / "other")),
    "a place where no model can be": Case(
        lambda s: s.model.save(unwritable(s)), "Cannot write|is no folder",
        lambda s, m: s.model.save(s.folder / "other")),
    # --- predictions
    "an ending that is none": Case(
        lambda s: predict(s, out=s.folder / "a.csv"), r"must end in (?P<end>\.h5ad)",
        lambda s, m: predict(s, out=s.folder / f"a{m['end']}")),
    "a prediction in the way": Case(
        lambda s: (predict(s, out=s.folder / "a.h5ad"), predict(s, out=s.folder / "a.h5ad")),
        "pass " + ARGUMENTS,
        lambda s, m: predict(s, out=s.folder / "a.h5ad", **arguments(m))),
    "a folder in the way": Case(
        lambda s: ((s.folder / "a.h5ad").mkdir(), predict(s, out=s.folder / "a.h5ad",
                                                          overwrite=True)),
        "choose another path", lambda s, m: predict(s, out=s.folder / "b.h5ad")),
    "no store in the way": Case(
        lambda s: ((s.folder / "a.zarr").mkdir(), text(s, "x", "a.zarr/mine"),
                   predict(s, out=s.folder / "a.zarr", overwrite=True)),
        "choose another path", lambda s, m: predict(s, out=s.folder / "b.zarr")),
    "a folder that is not there": Case(
        lambda s: predict(s, out=s.folder / "gone" / "a.h5ad"), "create it",
        lambda s, m: ((s.folder / "gone").mkdir(), predict(s, out=s.folder / "gone" / "a.h5ad"))),
    "a shard without a folder": Case(
        lambda s: predict(s, shard="1/2"),
        r'needs a folder to write to, (?P<arguments>out="[^"]+")',
        lambda s, m: predict(s, shard="1/1", out=s.folder / arguments(m)["out"])),
    "a shard that is none": Case(
        lambda s: predict(s, shard="3/2", out=s.folder / "p"), r"write (?P<shard>1/\d) for the fir",
        lambda s, m: predict(s, shard="1/1", out=s.folder / "p")),
    "a shard as a word": Case(
        lambda s: predict(s, shard="x", out=s.folder / "p"), r"must be like '(?P<shard>\d/\d)'",
        lambda s, m: s.model.predict(perturbations=["A"] * 1, shard="1/1", out=s.folder / "p")),
    "more shards than cells": Case(
        lambda s: predict(s, shard="1/99", out=s.folder / "p"),
        r"at most (?P<n>\d+) shards .*ask for fewer",
        lambda s, m: predict(s, shard=f"1/{m['n']}", out=s.folder / "p")),
    "shards of another request": Case(
        lambda s: (predict(s, shard="1/1", out=s.folder / "p"),
                   predict(s, shard="1/1", out=s.folder / "p", seed=1)), "choose another folder",
        lambda s, m: predict(s, shard="1/1", out=s.folder / "q", seed=1)),
    "shards where a file is": Case(
        lambda s: predict(s, shard="1/1", out=unwritable(s)), "Cannot make the folder",
        lambda s, m: predict(s, shard="1/1", out=s.folder / "q")),
    "shards without their request": Case(
        lambda s: (predict(s, shard="1/1", out=s.folder / "p"),
                   next((s.folder / "p").glob("*.json")).write_text("{"),
                   predict(s, shard="1/1", out=s.folder / "p")), "delete it and its shards",
        lambda s, m: (shutil.rmtree(s.folder / "p"),
                      predict(s, shard="1/1", out=s.folder / "p"))),
    "a request that says nothing": Case(
        lambda s: (predict(s, shard="1/1", out=s.folder / "p"),
                   next((s.folder / "p").glob("*.json")).write_text("[]"),
                   predict(s, shard="1/1", out=s.folder / "p")), "delete it and its shards",
        lambda s, m: (shutil.rmtree(s.folder / "p"),
                      predict(s, shard="1/1", out=s.folder / "p"))),
    "a file in the way of a table": Case(
        lambda s: refuse_existing([text(s, "x")], overwrite=False), "or replace with --overwrite",
        lambda s, m: refuse_existing([s.folder / "sets.gmt"], overwrite=True)),
    "a folder in the way of a table": Case(
        lambda s: refuse_existing([s.folder], overwrite=True), "name a file in it",
        lambda s, m: refuse_existing([s.folder / "file"], overwrite=False)),
    "a file that cannot be written": Case(
        lambda s: write_h5ad(unwritable(s), s.adata), "Cannot write",
        lambda s, m: write_h5ad(s.folder / "a.h5ad", s.adata)),
    # --- gene sets
    "no gene sets": Case(lambda s: read_gmt(s.folder / "gone"),
                         "see (?P<code>celldit.datasets.gene_set_file) for those",
                         lambda s, m: read_gmt(eval(m["code"], {"celldit": cd})("hallmark"))),
    "an empty gene-set file": Case(
        lambda s: read_gmt(text(s, "\n")), "a GMT line is NAME, description, GENE, GENE",
        lambda s, m: read_gmt(text(s, "NAME\tdescription\tGENE1\tGENE2\n"))),
    "a line with too little": Case(
        lambda s: read_gmt(text(s, "ONE\tx\n")), "needs a name, a description and at",
        lambda s, m: read_gmt(text(s, "ONE\tx\tG\n"))),
    "a set without a name": Case(
        lambda s: read_gmt(text(s, "\tx\tG\n")), "fill the first field",
        lambda s, m: read_gmt(text(s, "ONE\tx\tG\n"))),
    "a set without genes": Case(
        lambda s: read_gmt(text(s, "ONE\tx\t\t\n")), "fill it or drop the line",
        lambda s, m: read_gmt(text(s, "ONE\tx\tG\t\n"))),
    "a set that stands twice": Case(
        lambda s: read_gmt(text(s, GMT + GMT)), "give each set a name of its own",
        lambda s, m: read_gmt(text(s, GMT + GMT.replace("O", "Q")))),
    "a set in another encoding": Case(
        lambda s: read_gmt(text(s, GMT.replace("gene1", "β").encode("utf-16"))),
        "save the file as UTF-8", lambda s, m: read_gmt(text(s, GMT.replace("gene1", "β")))),
    "sets packed and damaged": Case(
        lambda s: read_gmt(text(s, b"\x1f\x8b" + b"x" * 40)), "it is a damaged gzip file",
        lambda s, m: read_gmt(text(s, GMT))),
    "a line of megabytes": Case(
        lambda s: read_gmt(text(s, "ONE\tx\t" + "G\t" * 3_000_000)), "check what it is, or",
        lambda s, m: read_gmt(text(s, "ONE\tx\t" + "G\t" * 300))),
    "sets that unpack to a hundred megabytes": Case(
        lambda s: read_gmt(text(s, gzip.compress(b"\n" * 100_000_001, 1))), "check what it is, or",
        lambda s, m: read_gmt(text(s, GMT))),
    "no sets given": Case(
        lambda s: GeneSets(gmt={}).fit(opened(written(s))),
        "give at least one, or (?P<arguments>gmt=None)",
        lambda s, m: GeneSets(**arguments(m))),
    "a set as text": Case(
        lambda s: GeneSets(gmt={"ONE": "gene1"}).fit(opened(written(s))), "must be a list of genes",
        lambda s, m: GeneSets(gmt={"ONE": ["gene1", "gene2"]}, min_size=1)),
    # --- settings
    "no settings": Case(
        lambda s: TrainSettings.from_toml(s.folder / "gone"), "check the path",
        lambda s, m: settings(s, TrainSettings().to_toml())),
    "settings of megabytes": Case(
        lambda s: settings(s, " " * 2_000_000), "check the path",
        lambda s, m: settings(s, TrainSettings().to_toml())),
    "settings that are no TOML": Case(
        lambda s: settings(s, "= 3"), "cannot be read as TOML",
        lambda s, m: settings(s, TrainSettings().to_toml())),
    "a table that is none": Case(
        lambda s: settings(s, "[trainin]"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: settings(s, f"[{m['name']}]")),
    "a table as a number": Case(
        lambda s: settings(s, "train = 3"), r"must be a table, (?P<name>\[\w+\])",
        lambda s, m: settings(s, m["name"])),
    "an entry that is none": Case(
        lambda s: settings(s, "[train]\nflow_bach = 3"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: settings(s, f"[train]\n{m['name']} = 3")),
    "an entry of another kind": Case(
        lambda s: settings(s, '[train]\nflow_batch = "x"'), "must be a whole number",
        lambda s, m: settings(s, "[train]\nflow_batch = 3")),
    # --- checkpoints
    "minutes that are none": Case(
        lambda s: train(s, checkpoint_minutes=-1), "a number of at least (?P<n>0)",
        lambda s, m: train(s, checkpoint_minutes=int(m["n"]))),
    "checkpoints where a file is": Case(
        lambda s: (unwritable(s), train(s, "file/below")), "Cannot (write|make)",
        lambda s, m: train(s, "other")),
    "checkpoints of another training": Case(
        lambda s: (train(s), train(s, seed=5)),
        "Choose another checkpoint folder, or delete this one", lambda s, m: train(s, "b", seed=5)),
}
# fmt: on
