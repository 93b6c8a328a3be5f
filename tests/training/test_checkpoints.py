"""Training can be killed at any moment, and the same call ends at the same weights."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit import CellDiT
from celldit.errors import FileError, InputError
from celldit.latent import LatentConfig
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig
from celldit.training.saving import state_file as state_file_module
from celldit.training.saving.checkpoints import Checkpoints, Part
from celldit.training.saving.state_file import read_state, write_state

#: As in ``tests/robustness/test_kills.py``.
N_KILLS = int(os.environ.get("CELLDIT_KILLS", "5"))
CONFIG = TrainingConfig(flow_steps_per_epoch=6, n_trials=2, flow_batch=32, least_gain=0)


def model_of(adata: ad.AnnData, n_dims: int = 6, **options: Any) -> CellDiT:
    return CellDiT(
        adata,
        "modules",
        LatentConfig(n_dims=n_dims, token_dim=3),
        dit=DiTConfig(width=16, depth=1, n_heads=2),
        **options,
    )


def train(adata: ad.AnnData, folder: Path | None, n_dims: int = 6, **options: Any) -> CellDiT:
    model = model_of(adata, n_dims)
    arguments = {"checkpoint_minutes": 0.0, "config": CONFIG, **options}
    epochs = arguments.pop("max_epochs", 3)
    model.train(epochs, checkpoint_dir=folder, enable_progress_bar=False, **arguments)
    return model


def in_a_process(adata: ad.AnnData, folder: Path) -> multiprocessing.Process:
    """Training in a process of its own, forked so that nothing has to be imported again."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(adata, folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


@pytest.fixture(scope="module")
def screen(simulate_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    adata = simulate_screen(240, 20)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    return adata


@pytest.fixture(scope="module")
def uninterrupted(screen: ad.AnnData) -> CellDiT:
    return train(screen, None)


def equal(one: CellDiT, two: CellDiT) -> bool:
    parts = ((m.trained.autoencoder.state_dict(), m.trained.flow.state_dict()) for m in (one, two))
    for a, b in zip(*parts, strict=True):
        if not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return one.trained.model_id == two.trained.model_id and one.history == two.history


def test_killed_at_random_moments_it_ends_at_the_same_weights(
    screen: ad.AnnData, uninterrupted: CellDiT, tmp_path: Path
) -> None:
    whole, seen = uninterrupted, set()
    started = time.perf_counter()
    in_a_process(screen, tmp_path / "timed").join()
    duration = time.perf_counter() - started
    rng, n_killed, folder = np.random.default_rng(7), 0, tmp_path / "kept"
    # More than asked where the machine is slow to start and nothing was kept by then.
    while n_killed < N_KILLS or (len(seen) < 5 and n_killed < 30):
        process = in_a_process(screen, folder)
        process.join(rng.uniform(0.05, 0.3) * duration)
        seen |= {(n_killed, p.name) for p in folder.glob("*.checkpoint")}
        if process.is_alive():
            process.kill()  # SIGKILL
            n_killed += 1
            process.join()
        else:  # it was done before its time: once more from the start
            assert process.exitcode == 0
            assert equal(train(screen, folder), whole)
            shutil.rmtree(folder)
    assert len(seen) >= 5, "the kills came before there was anything to go on from"
    assert equal(train(screen, folder), whole)


def test_killed_after_every_single_checkpoint(
    screen: ad.AnnData, uninterrupted: CellDiT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moments in between are covered one by one: each run dies as it has written one file."""

    class Killed(BaseException):
        pass

    write, written = Part._write, []

    def write_and_die(self: Part, content: Any) -> None:
        write(self, content)
        written.append((self.name, content["finished"]))
        if len(written) % 7 == 0:
            raise Killed

    monkeypatch.setattr(Part, "_write", write_and_die)
    n_killed = 0
    for _ in range(60):
        try:
            model = train(screen, tmp_path)
            break
        except Killed:
            n_killed += 1
    assert n_killed >= 5
    assert {part for part, _ in written} == {"latent", "flow-trial-1", "flow-trial-2", "flow"}
    assert equal(model, uninterrupted)


def test_checkpoints_change_nothing(
    with_checkpoints: tuple[CellDiT, Path], uninterrupted: CellDiT
) -> None:
    model, folder = with_checkpoints
    assert equal(model, uninterrupted)
    names = ["flow-trial-1", "flow-trial-2", "flow", "latent"]
    assert sorted(p.stem for p in folder.iterdir()) == sorted(names)


def test_what_is_finished_is_not_trained_again(
    screen: ad.AnnData,
    uninterrupted: CellDiT,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import lightning.pytorch as pl

    def no_training(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(pl.Trainer, "fit", no_training)
    assert equal(train(screen, kept), uninterrupted)


def test_without_time_for_one_only_finished_parts_are_kept(
    screen: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr(Part, "keep", lambda self, progress: kept.append(self.name))
    train(screen, tmp_path, checkpoint_minutes=10.0)
    assert not kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"max_epochs": 2}, r"max_epochs \(3 there, 2 here\)"),
        ({"config": TrainingConfig(flow_rate=5e-3)}, r"config flow_rate \(0.001 there"),
        ({"accumulate_grad_batches": 2}, r"trainer accumulate_grad_batches \(None there, 2 here"),
        ({"n_dims": 3}, r"latent n_dims \(6 there, 3 here\)"),
    ],
)
def test_checkpoints_of_another_training_are_refused(
    screen: ad.AnnData, kept: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        train(screen, kept, **options)


@pytest.fixture(scope="module")
def with_checkpoints(
    screen: ad.AnnData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CellDiT, Path]:
    folder = tmp_path_factory.mktemp("kept")
    return train(screen, folder), folder


@pytest.fixture(scope="module")
def kept(with_checkpoints: tuple[CellDiT, Path]) -> Path:
    """The checkpoints of a whole training; not to be changed."""
    return with_checkpoints[1]


def test_checkpoints_of_other_data_are_refused(screen: ad.AnnData, kept: Path) -> None:
    other = screen.copy()
    other.X[0, 0] += 1
    with pytest.raises(InputError, match="differs in counts"):
        train(other, kept)
    labels = screen.copy()
    labels.obs["perturbation"] = labels.obs["perturbation"].astype(str)
    labels.obs.iloc[2, labels.obs.columns.get_loc("perturbation")] = "B"
    with pytest.raises(InputError, match="differs in conditions of the cells"):
        train(labels, kept)
    with pytest.raises(InputError, match=r"differs in number of cells \(240 there, 239 here\)"):
        train(screen[:239].copy(), kept)


def test_checkpoints_of_another_version_are_refused(
    screen: ad.AnnData, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celldit.training.saving import checkpoints

    monkeypatch.setattr(checkpoints, "__version__", "9.9")
    with pytest.raises(InputError, match=r"celldit version \(.* there, 9\.9 here\)"):
        train(screen, kept)


@pytest.mark.parametrize("minutes", [-1, float("nan"), "10", True])
def test_minutes_are_a_number(screen: ad.AnnData, minutes: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="checkpoint_minutes"):
        train(screen, tmp_path, checkpoint_minutes=minutes)


def test_a_folder_that_is_a_file_is_refused(screen: ad.AnnData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(FileError, match="Cannot write into"):
        train(screen, tmp_path / "file")


# --- the file ----------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=15)
@given(state=st.dictionaries(st.text(max_size=5), values, max_size=5))
def test_any_state_comes_back(tmp_path: Path, state: dict[str, Any]) -> None:
    write_state(tmp_path / "a.checkpoint", state)
    assert read_state(tmp_path / "a.checkpoint") == state


def test_tensors_and_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    state = {
        "view": shared[1:, ::2],
        "same": [shared, shared],
        "odd": {0: torch.tensor(3), 1: torch.zeros(0, 2), 2: shared.bfloat16()},
        "array": np.array([[np.inf, -0.0, 1e-300]]),
    }
    write_state(tmp_path / "a.checkpoint", state)
    read = read_state(tmp_path / "a.checkpoint")
    assert torch.equal(read["view"], state["view"])
    assert all(torch.equal(tensor, shared) for tensor in read["same"])
    assert list(read["odd"]) == [0, 1, 2]
    for there, here in zip(read["odd"].values(), state["odd"].values(), strict=True):
        assert there.dtype == here.dtype
        assert torch.equal(there, here)
    assert read["array"].tobytes() == state["array"].tobytes()


def test_a_checkpoint_that_is_cut_or_changed_anywhere_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.checkpoint"
    write_state(path, {"weights": torch.arange(64.0), "step": 12})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(whole), 20):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="damaged or cut short"):
            read_state(path)
    for at in rng.integers(8, len(whole), 40):
        spoilt = bytearray(whole)
        spoilt[at] ^= 0x11
        path.write_bytes(bytes(spoilt))
        with pytest.raises(FileError, match="damaged or cut short"):
            read_state(path)


def test_a_damaged_checkpoint_stops_training_before_it_starts(
    screen: ad.AnnData, kept: Path, tmp_path: Path
) -> None:
    shutil.copytree(kept, tmp_path / "copy")
    path = tmp_path / "copy" / "flow.checkpoint"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FileError, match=r"flow\.checkpoint is damaged or cut short; delete it"):
        train(screen, tmp_path / "copy")
    path.unlink()
    train(screen, tmp_path / "copy")


def test_what_a_killed_writer_left_is_cleared_away(
    screen: ad.AnnData, kept: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(kept, tmp_path / "copy")
    (folder / ".latent.0123abcd.checkpoint").write_bytes(b"half")
    train(screen, folder)
    assert not list(folder.glob(".*"))


def test_a_checkpoint_holds_no_pickle(kept: Path) -> None:
    for path in kept.glob("*.checkpoint"):
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        assert {"celldit_state", "celldit_sha256"} == set(header["__metadata__"])


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot hold callbacks\.mine, which is of type object"):
        write_state(tmp_path / "a.checkpoint", {"callbacks": {"mine": object()}})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_last_checkpoint_and_says_how_much_room_is_needed(
    screen: ad.AnnData,
    uninterrupted: CellDiT,
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "flow.checkpoint").read_bytes()
    (tmp_path / "latent.checkpoint").unlink()

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state_file_module, "save_file", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 2048))
    with pytest.raises(FileError, match=r"takes 0\.1 MB and 0\.1 MB are free\. What was written"):
        write_state(tmp_path / "flow.checkpoint", {"weights": torch.zeros(20_000)})
    with pytest.warns(UserWarning, match="Training goes on without this checkpoint: .* are free"):
        model = train(screen, tmp_path)
    assert equal(model, uninterrupted)
    assert (tmp_path / "flow.checkpoint").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


# --- interruption ------------------------------------------------------------------------------


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(
    screen: ad.AnnData,
    uninterrupted: CellDiT,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    from celldit.training.flow_stage import FlowStage

    step, steps = FlowStage.training_step, []

    def interrupted(self: FlowStage, batch: Any) -> torch.Tensor:
        steps.append(0)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(FlowStage, "training_step", interrupted)
    # Whatever the tests were started by, as in a terminal.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="is whole, and the same call goes on"):
        train(screen, tmp_path, checkpoint_minutes=60.0)
    assert signal.getsignal(signal.SIGINT) is before
    state = read_state(tmp_path / "flow-trial-1.checkpoint")
    assert not state["finished"]
    assert state["progress"]["global_step"] == 3
    assert equal(train(screen, tmp_path), uninterrupted)


def test_a_terminated_job_keeps_a_checkpoint(screen: ad.AnnData, tmp_path: Path) -> None:
    process = in_a_process(screen, tmp_path)
    while not (tmp_path / "flow-trial-1.checkpoint").exists() and process.is_alive():
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert process.exitcode == 128 + signal.SIGTERM
    assert (tmp_path / "flow-trial-1.checkpoint").exists()


def test_a_folder_that_cannot_hold_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match=r"Cannot write into .*file/new: Not a directory"):
        Checkpoints(tmp_path / "file" / "new", 1, {})
    monkeypatch.setattr("celldit.training.saving.checkpoints.os.access", lambda *_: False)
    with pytest.raises(FileError, match=r"Cannot write into .*choose another folder"):
        Checkpoints(tmp_path, 1, {})


def test_what_a_checkpoint_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot hold the key \(1, 2\) of callbacks"):
        write_state(tmp_path / "x.ckpt", {"callbacks": {(1, 2): 3}})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_a_later_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    with monkeypatch.context() as later:
        later.setattr(state_file_module, "FORMAT", 99)
        write_state(path, {"a": 1})
    with pytest.raises(FileError, match=r"format 99; this celldit reads 1. Choose another folder"):
        read_state(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"compile": "maybe"}, "compile='maybe' must be 'auto', 'on' or 'off'"),
        ({"held_out_cells": 1.0}, "held_out_cells=1 would leave nothing to train on"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TrainingConfig(**change)
