"""Damage files at random and read them: nothing crashes, hangs, or raises what is not celldit's.

``python tests/tools/fuzz_files.py folders 1000`` tries a thousand damaged model folders; the other
kinds are ``stores``, ``gene-sets``, ``settings`` and ``json``, several joined by commas. A third
number is the seed. What happened is printed as one line of JSON for each kind; a crash ends the
process, as it would a user's.
"""

from __future__ import annotations

import gzip
import json
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import celldit as cd
from celldit.cli.settings import TrainSettings
from celldit.errors import CellditError
from celldit.io.files import read_h5ad
from celldit.io.folders import read_folder
from celldit.tokenizers import read_gmt

MODELS = Path(__file__).resolve().parents[1] / "compatibility"
ODD = [
    "\t\t",
    "\n",
    "\0",
    "\ufeff",
    "{" * 60,
    "[" * 60,
    "]",
    '"',
    "1e999",
    "NaN",
    "-1",
    "=",
    "[[x]]",
]
EVIL = [10**9, 10**30, -1, 0, 0.5, 1e308, True, None, "x" * 100, [], {}, [[[]]]]


def damaged(raw: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut off, doubled, or something odd put between them."""
    changed, how = bytearray(raw), int(rng.integers(0, 6))
    if how == 0:
        return bytes(changed[: int(rng.integers(0, len(raw) + 1))])
    if how == 1:
        at = int(rng.integers(0, len(raw) + 1))
        return bytes(changed[:at]) + str(rng.choice(ODD)).encode() + bytes(changed[at:])
    if how == 2:
        start, stop = sorted(rng.integers(0, len(raw) + 1, 2).tolist())
        return bytes(changed[:stop] + changed[start:])
    for at in rng.integers(0, len(raw), int(rng.integers(1, 21))):
        changed[at] ^= int(rng.integers(1, 256))
    return bytes(changed)


def with_another_value(content: Any, rng: np.random.Generator) -> str:
    """JSON in which one entry, at any depth, is of another kind or size."""
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[int(rng.integers(0, len(keys)))]
        below = node[key]
        if not isinstance(below, (dict, list)) or not below or rng.random() < 0.2:
            node[key] = EVIL[int(rng.integers(0, len(EVIL)))]
            return json.dumps(content)
        node = below


def folders(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """A model folder with one damaged file, loaded and used."""
    whole = MODELS / str(rng.choice(["format_1", "format_2"])) / "pca"
    target = folder / "model"
    shutil.copytree(whole, target)
    one = target / str(rng.choice(["config.json", "vocab.json", "weights.safetensors"]))
    if one.suffix == ".json" and rng.random() < 0.5:
        one.write_text(with_another_value(json.loads(one.read_text()), rng))
    else:
        one.write_bytes(damaged(one.read_bytes(), rng))

    def use() -> None:
        model = cd.CellDiT.load(target)
        model.predict_effects(list(model.perturbations[:2]))
        model.generate(2)

    return use


def stores(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """A file or folder of cells with damage anywhere, opened, read and set up."""
    counts = sparse.csr_matrix(rng.poisson(1.0, (60, 12)) + (np.arange(12) == 0))
    obs = pd.DataFrame({"p": pd.Categorical(["control", "A", "B"] * 20)})
    obs.index = [f"c{i}" for i in range(60)]
    adata = ad.AnnData(counts.astype(np.float32), obs=obs)
    adata.var_names = [f"g{i}" for i in range(12)]
    if rng.random() < 0.5:
        path = folder / "cells.h5ad"
        adata.write_h5ad(path)
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        path = folder / "cells.zarr"
        adata.write_zarr(path)
        files = sorted(p for p in path.rglob("*") if p.is_file())
        one = files[int(rng.integers(0, len(files)))]
        one.unlink() if rng.random() < 0.3 else one.write_bytes(damaged(one.read_bytes(), rng))

    def use() -> None:
        store = cd.open_store(path, perturbation_key="p")
        sparse.csc_matrix(store.take(slice(None)).counts).sum(axis=0)
        if path.suffix == ".h5ad":
            cd.CellDiT.setup_anndata(read_h5ad(path), perturbation_key="p")

    return use


def gene_sets(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """A gene-set file, packed or not."""
    raw = "".join(f"SET{i}\thttp://x\tG{i}\tG{i + 1}\tβ\n" for i in range(20)).encode()
    path = folder / "sets.gmt"
    raw = gzip.compress(damaged(raw, rng)) if rng.random() < 0.5 else raw
    path.write_bytes(damaged(raw, rng))
    return lambda: read_gmt(path)


def settings(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """A file of settings."""
    path = folder / "settings.toml"
    path.write_bytes(damaged(TrainSettings().to_toml().encode(), rng))
    return lambda: TrainSettings.from_toml(path)


def json_files(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """A JSON file of a model."""
    target = folder / "model"
    shutil.copytree(MODELS / "format_1" / "pca", target)
    path = target / str(rng.choice(["config.json", "vocab.json"]))
    path.write_bytes(damaged(path.read_bytes(), rng))
    return lambda: read_folder(target)


#: Each kind of file, and what makes a damaged one.
KINDS = {
    "folders": folders,
    "stores": stores,
    "gene-sets": gene_sets,
    "settings": settings,
    "json": json_files,
}


def peak_kb() -> int:
    """Most memory that this program has had, without that of the process which started it."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(kind: str, n: int, seed: int) -> dict[str, Any]:
    """Try `n` inputs of a kind; counts of what happened, the longest time and the peak memory."""
    make = KINDS[kind]
    outcomes: Counter[str] = Counter()
    foreign, longest = [], 0.0
    _ = cd.CellDiT  # loads modules, which is not timed with the first input
    before = peak_kb()
    for number in range(n):
        with tempfile.TemporaryDirectory() as folder:
            use = make(Path(folder), np.random.default_rng([seed, number]))
            start = time.process_time()
            try:
                use()
                outcomes["used"] += 1
            except CellditError as error:
                outcomes["refused"] += 1
                if len(str(error)) > 3000:
                    foreign.append(f"{number}: {len(str(error))} letters")
            except Exception as error:
                foreign.append(f"{number}: {type(error).__name__}: {error}"[:300])
            longest = max(longest, time.process_time() - start)
    peak = peak_kb()
    return {
        "kind": kind,
        "n": n,
        "seed": seed,
        **outcomes,
        "foreign": foreign,
        "longest_s": round(longest, 2),
        "peak_mb": round(peak / 1e3),
        "grew_by_mb": round((peak - before) / 1e3),
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    asked = [*sys.argv[1:], "0"]
    for kind in asked[0].split(","):
        print(json.dumps(fuzz(kind, int(asked[1]), int(asked[2]))), flush=True)
