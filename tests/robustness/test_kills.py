"""Killed at any moment, a write leaves the old or the new whole, and the next one works.

``CELLDIT_KILLS=50`` kills each kind of write so often; an ordinary run kills five times.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit import CellDiT
from celldit.errors import FileError
from celldit.io.files import read_h5ad, write_h5ad, write_text
from celldit.io.folders import read_folder, write_folder
from celldit.io.sampling import TILE, PredictedCells, Sampling
from celldit.io.stream import stream

N_KILLS = int(os.environ.get("CELLDIT_KILLS", "5"))


def write_model(target: Path, generation: int) -> None:
    arrays = {f"w{i}": np.full(20_000, generation, np.float32) for i in range(4)}
    vocab = {"generation": generation, "genes": ["g"] * 2000}
    write_folder(target, {"generation": generation}, vocab, arrays, overwrite=True)


def read_model(target: Path) -> set[float]:
    config, vocab, arrays = read_folder(target)
    found = {value for array in arrays.values() for value in np.unique(array)}
    return {*map(float, found), config["generation"], vocab["generation"]}


def write_table(target: Path, generation: int) -> None:
    rows = {"generation": [generation] * 20_000}
    write_text(target, json.dumps(rows, indent=1))


def read_table(target: Path) -> set[float]:
    rows = json.loads(target.read_text())["generation"]
    assert len(rows) == 20_000
    return set(rows)


def write_cells(target: Path, generation: int) -> None:
    write_h5ad(target, ad.AnnData(np.full((200, 100), generation, np.float32)))


def read_cells(target: Path) -> set[float]:
    return set(np.unique(read_h5ad(target).X).tolist())


def write_prediction(target: Path, generation: int) -> None:
    counts = sparse.csr_matrix(np.full((TILE, 20), generation, np.int32))
    tile = PredictedCells(
        counts.astype(np.float32), counts, np.ones(TILE), np.full((TILE, 3), float(generation))
    )
    obs = pd.DataFrame(index=[f"c{i}" for i in range(2 * TILE)])
    genes = tuple(f"g{i}" for i in range(20))
    stream(Sampling(genes, obs, {"generation": generation}, lambda at: tile, TILE), target)


def read_prediction(target: Path) -> set[float]:
    written = ad.read_h5ad(target) if target.suffix == ".h5ad" else ad.read_zarr(target)
    assert written.shape == (2 * TILE, 20)
    parts = (written.layers["counts"].data, written.layers["mean"].data, written.obsm["X_celldit"])
    found = {float(v) for part in parts for v in np.unique(part)}
    return {*found, float(written.uns["celldit"]["generation"])}


KINDS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], set[float]]]] = {
    "model": (write_model, read_model),
    "table.json": (write_table, read_table),
    "cells.h5ad": (write_cells, read_cells),
    "predicted.h5ad": (write_prediction, read_prediction),
    "predicted.zarr": (write_prediction, read_prediction),
}


def start_writing(write: Callable[[Path, int], None], target: Path, generation: int) -> int:
    """A process that writes one generation after the other until it is killed."""
    child = os.fork()
    if child:
        return child
    try:
        while True:
            write(target, generation)
            generation += 1
    finally:
        os._exit(1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", list(KINDS))
def test_kill_at_random_moments(name: str, tmp_path: Path) -> None:
    write, read = KINDS[name]
    target, rng = tmp_path / name, np.random.default_rng(len(name))
    write(target, 1)
    known = 1.0
    for _ in range(N_KILLS):
        child = start_writing(write, target, int(known) + 1)
        time.sleep(rng.uniform(0.0, 0.08))
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the writer ended by itself"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = read(target)
        assert len(found) == 1, f"a mixture of generations {sorted(found)}"
        assert found >= {known} or min(found) > known
        known = min(found)
    write(target, 10_000)
    assert read(target) == {10_000.0}
    left = [p.name for p in tmp_path.iterdir() if p != target]
    assert not left


def outcome_in_a_child(prepare: Callable[[], object], action: Callable[[], object]) -> str:
    """What an action raises in a process of its own, whose limits and user may be changed."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = "nothing"
        try:
            prepare()
            action()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode()[:2000])
        # Not through the interpreter's end: h5py cannot close files on a full disk.
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def let_no_file_grow() -> None:
    """As on a full disk, the system refuses every byte beyond the first 600 of a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", list(KINDS))
def test_a_full_disk(name: str, tmp_path: Path) -> None:
    write, read = KINDS[name]
    target = tmp_path / name
    write(target, 1)
    said = outcome_in_a_child(let_no_file_grow, lambda: write(target, 2))
    assert said.startswith("FileError: Cannot write"), said
    assert read(target) == {1.0}
    write(target, 3)
    assert read(target) == {3.0}
    assert [p.name for p in tmp_path.iterdir()] == [name]


def become_nobody() -> None:
    """The superuser may write anywhere; nobody may not."""
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", list(KINDS))
def test_a_folder_that_is_read_only(name: str) -> None:
    write, read = KINDS[name]
    folder = Path(tempfile.mkdtemp())
    try:
        write(folder / name, 1)
        folder.chmod(0o555)
        said = outcome_in_a_child(become_nobody, lambda: write(folder / name, 2))
        assert said.startswith("FileError: Cannot write"), said
        assert read(folder / name) == {1.0}
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


HOLDER = """
import sys, time
from celldit.io.locks import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_dead_one_forgotten(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(target)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(
            FileError, match=rf"being written by another process \(process {holder.pid}"
        ):
            write_model(target, 1)
        assert not target.exists()
        holder.kill()
        holder.wait()
    assert (tmp_path / ".model.lock").exists(), "the dead process could not tidy up"
    write_model(target, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


HOLDER_INSIDE = HOLDER.replace("sys.argv[1])", "sys.argv[1], inside=True)")


def test_two_processes_do_not_train_into_one_folder(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER_INSIDE, str(folder)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        # What the first process is about to rename belongs to it.
        (folder / ".flow.checkpoint").touch()
        said = rf"checkpoints is being written by another process \(process {holder.pid}"
        with pytest.raises(FileError, match=said):
            train_tiny(tiny_screen, checkpoint_dir=folder)
        assert (folder / ".flow.checkpoint").exists()
        holder.kill()
        holder.wait()
    assert train_tiny(tiny_screen, checkpoint_dir=folder).is_trained
    assert not list(folder.glob(".*"))


def test_training_holds_its_folder_and_lets_it_go(
    tiny_screen: ad.AnnData,
    train_tiny: Callable[..., CellDiT],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "checkpoints"
    refused = []
    from celldit.training.fit import fit_autoencoder as real

    def second_process(*arguments: Any, **options: Any) -> Any:
        command = [sys.executable, "-c", HOLDER_INSIDE, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
        refused.append(done.stderr)
        return real(*arguments, **options)

    monkeypatch.setattr("celldit.training.fit.fit_autoencoder", second_process)
    train_tiny(tiny_screen, checkpoint_dir=folder)
    assert len(refused) == 1
    assert "is being written by another process" in refused[0]
    assert not (folder / ".lock").exists()


def test_reading_while_writing_sees_one_model(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_model(target, 1)
    child = start_writing(write_model, target, 2)
    try:
        seen = set()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            found = read_model(target)
            assert len(found) == 1
            seen |= found
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(seen) > 1
