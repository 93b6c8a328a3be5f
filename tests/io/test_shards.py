"""Shards hold the cells of the whole, byte for byte, and are made once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celldit import CellDiT
from celldit.errors import FileError, InputError
from celldit.io import shards
from celldit.io.sampling import TILE
from celldit.io.shards import Shard

LABELS = ["A", "B", "C", "A+B"]


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("shard-*.h5ad"))


@given(n_cells=st.integers(1, 20_000), of=st.integers(1, 30))
def test_shards_are_whole_tiles_and_cover_each_cell_once(n_cells: int, of: int) -> None:
    if of > -(-n_cells // TILE):
        with pytest.raises(InputError, match="ask for fewer"):
            Shard(1, of).rows(n_cells)
        return
    pieces = [Shard(i, of).rows(n_cells) for i in range(1, of + 1)]
    assert [x for piece in pieces for x in piece] == list(range(n_cells))
    assert all(piece.start % TILE == 0 and len(piece) for piece in pieces)
    assert max(map(len, pieces)) - min(len(p) for p in pieces[:-1] or pieces) <= 2 * TILE


def dense(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.to_memory().todense() if hasattr(matrix, "to_memory") else matrix)


def test_shards_together_are_the_whole(flowing_model: CellDiT, tmp_path: Path) -> None:
    whole = flowing_model.predict(perturbations=LABELS)
    for i in (3, 1, 2):
        part = flowing_model.predict(perturbations=LABELS, out=tmp_path, shard=(i, 3))
        assert part.n_obs == len(Shard(i, 3).rows(whole.n_obs))
    parts = [ad.read_h5ad(path) for path in sorted(tmp_path.glob("shard-*.h5ad"))]
    together = ad.concat(parts)
    assert list(together.obs_names) == list(whole.obs_names)
    np.testing.assert_array_equal(together.obsm["X_celldit"], whole.obsm["X_celldit"])
    for name in ("counts", "mean"):
        np.testing.assert_array_equal(together.layers[name].toarray(), whole.layers[name].toarray())
    np.testing.assert_array_equal(together.obs["size_factor"], whole.obs["size_factor"])


def test_a_shard_that_is_there_is_not_made_again(
    flowing_model: CellDiT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flowing_model.predict(perturbations=LABELS, out=tmp_path, shard="1/2")
    assert made(tmp_path) == ["shard-00001-of-00002.h5ad"]

    def no_sampling(*_: Any) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(shards, "stream", no_sampling)
    again = flowing_model.predict(perturbations=LABELS, out=tmp_path, shard="1/2")
    np.testing.assert_array_equal(again.obsm["X_celldit"], first.obsm["X_celldit"])
    with pytest.raises(AssertionError, match="sampled again"):
        flowing_model.predict(perturbations=LABELS, out=tmp_path, shard="2/2")


def test_what_was_killed_half_way_leaves_no_shard(
    flowing_model: CellDiT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celldit.inference import edits

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(edits, "edit", dies)
        with pytest.raises(KeyboardInterrupt):
            flowing_model.predict(perturbations=LABELS, out=tmp_path, shard="1/2")
    assert made(tmp_path) == []
    flowing_model.predict(perturbations=LABELS, out=tmp_path, shard="1/2")
    assert made(tmp_path) == [Shard(1, 2).file_name]


def test_processes_share_the_work(flowing_model: CellDiT, tmp_path: Path) -> None:
    def work(number: int) -> None:
        flowing_model.predict(perturbations=LABELS, out=tmp_path, shard=(number, 2))

    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, args=(number,)) for number in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert made(tmp_path) == [Shard(i, 2).file_name for i in (1, 2)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"perturbations": ["A", "B", "C"]}, r"differs in n_cells"),
        ({"perturbations": ["A", "B", "C", "B+C"]}, r"differs in cells .*; perturbations"),
        ({"seed": 1}, r"differs in seed \(0 there, 1 here\)"),
        ({"shard": "1/3"}, r"differs in shards \(2 there, 3 here\)"),
        ({"n_steps": 3}, r"differs in n_steps \(8 there, 3 here\)"),
    ],
)
def test_another_request_is_kept_out(
    flowing_model: CellDiT, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    asked: dict[str, Any] = {"perturbations": LABELS, "out": tmp_path, "shard": "1/2"}
    flowing_model.predict(**asked)
    with pytest.raises(FileError, match=said):
        flowing_model.predict(**{**asked, **change})


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", (0, 2), (1.0, 2), "-1/2", None])
def test_a_shard_is_one_of_several(flowing_model: CellDiT, tmp_path: Path, shard: Any) -> None:
    if shard is None:
        with pytest.raises(InputError, match="needs a folder"):
            flowing_model.predict(perturbations=LABELS, shard="1/2")
        return
    with pytest.raises(InputError, match="shard"):
        flowing_model.predict(perturbations=LABELS, out=tmp_path / "new", shard=shard)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "cannot be read"), ('["a list"]', "does not describe shards; delete it")],
)
def test_a_request_of_something_else(
    flowing_model: CellDiT, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(FileError, match=said):
        flowing_model.predict(perturbations=LABELS, out=tmp_path, shard="1/2")


def test_a_folder_that_cannot_be_written(
    flowing_model: CellDiT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match=r"Cannot make the folder .*file/new: Not a directory"):
        flowing_model.predict(perturbations=LABELS, shard="1/2", out=tmp_path / "file" / "new")
    monkeypatch.setattr(shards.os, "access", lambda *_: False)
    with pytest.raises(FileError, match=r"Cannot write into .*choose another folder"):
        flowing_model.predict(perturbations=LABELS, shard="1/2", out=tmp_path)
