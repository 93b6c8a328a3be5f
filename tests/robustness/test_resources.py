"""Memory, disk and signals: what runs out or stops is said, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import anndata as ad
import lightning.pytorch as pl
import pytest

import celldit as cd
from celldit import CellDiT, memory
from celldit.data.cells import Cells
from celldit.errors import CellditError, FileError, OutOfMemoryError
from celldit.io.model_folder import arrays_of, fingerprint
from celldit.training import latents
from celldit.training.saving.state_file import write_state

SETUP: dict[str, Any] = {"perturbation_key": "perturbation", "covariate_keys": ["donor"]}


class InterruptAtTheEnd(pl.Callback):
    """Ctrl-C after the last batch of a stage, when nobody looks for the next."""

    def __init__(self) -> None:
        self.stages = 0

    def on_train_end(self, *_: Any) -> None:
        self.stages += 1
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


def test_ctrl_c_between_stages_stops(
    tiny_screen: ad.AnnData, train_tiny: Any, tmp_path: Path
) -> None:
    stop = InterruptAtTheEnd()
    model = CellDiT(tiny_screen, "modules")
    # A test run in the background of a shell inherits that interruptions are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    options = {"checkpoint_dir": tmp_path, "callbacks": [stop], "enable_progress_bar": False}
    try:
        with pytest.raises(KeyboardInterrupt, match="the same call goes on from there"):
            model.train(1, seed=3, **options)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.stages == 1
    assert not model.is_trained
    assert not (tmp_path / ".lock").exists()


def test_three_trainings_at_once_end_at_the_weights_of_serial_ones(
    tiny_screen: ad.AnnData, train_tiny: Any
) -> None:
    def weights(seed: int) -> str:
        return fingerprint(arrays_of(train_tiny(tiny_screen.copy(), seed=seed).trained))

    serial = [weights(seed) for seed in range(3)]
    together: dict[int, str] = {}
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            together[seed] = weights(seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [together[seed] for seed in range(3)] == serial


MAKE_LATENTS = """
import os, sys, time
from pathlib import Path
from celldit.training import latents

class Cells:
    on_disk, n_cells = True, 3
    def blocks(self, size):
        return iter(())

class Autoencoder:
    n_tokens, token_dim, batch_size = 2, 2, 8

def map_nothing(path):
    print(path, flush=True)
    time.sleep(60)

latents.LatentFile = map_nothing
with latents.encoded_once(Autoencoder(), Cells(), Path(sys.argv[1])):
    pass
"""


def test_latents_of_a_killed_run_are_removed_by_the_next(tmp_path: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", MAKE_LATENTS, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip()).parent

    killed, left_over = start()
    killed.kill()
    killed.wait()
    assert left_over.is_dir()
    living, in_use = start()
    try:
        assert not left_over.exists()
        stranger = Path(tempfile.mkdtemp(prefix="celldit-latents-", dir=tmp_path))
        latents._remove_left_over(tmp_path)
        assert in_use.is_dir()
        assert stranger.is_dir()
    finally:
        living.kill()
        living.wait()
    latents._remove_left_over(tmp_path)
    assert not in_use.exists()


@pytest.mark.parametrize("ending", [".html", ".json", ".csv"])
def test_a_report_is_written_whole_or_not_at_all(
    tiny_screen: ad.AnnData,
    tiny_model: Any,
    tmp_path: Path,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth = tiny_screen[tiny_screen.obs["perturbation"].isin(["control", "A"])].copy()
    predicted = tiny_model.predict(truth, perturbations=["A"])
    whole = Path.write_text

    def full(path: Path, *rest: Any, **options: Any) -> int:
        if path.suffix == ending:
            raise OSError(28, "No space left on device")
        return whole(path, *rest, **options)

    monkeypatch.setattr(Path, "write_text", full)
    if ending == ".csv":
        import pandas as pd

        def no_room(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pd.DataFrame, "to_csv", no_room)
    with pytest.raises(FileError, match="No space left"):
        cd.tl.report(
            predicted, truth, truth, tmp_path / "r.html", basis="pca", n_repeats=1, n_resamples=0
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7.45 GiB for an array"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"),
    ],
)
def test_too_little_memory_is_said_with_the_bound(
    tiny_model: Any, tiny_screen: ad.AnnData, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(tiny_model.trained.autoencoder), "encode", fail)
    with pytest.raises(OutOfMemoryError, match=r"not enough memory .* is [\d,.]+ GB") as caught:
        tiny_model.predict(tiny_screen, perturbations=["A"])
    assert isinstance(caught.value, CellditError)
    assert isinstance(caught.value, MemoryError)
    monkeypatch.undo()
    monkeypatch.setattr(Cells, "from_anndata", fail)
    with pytest.raises(OutOfMemoryError):
        CellDiT(tiny_screen)


def test_other_errors_of_torch_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.within_memory():
        raise RuntimeError("shapes do not fit")


def test_the_smallest_bound_is_named() -> None:
    """A process that may take 4 GB in a machine of more."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "from celldit.memory import bound; print(bound())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "(4294967296.0, 'the limit of this process (ulimit -v)')"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"identity": 3, "finished": True, "result": {}},
        {"identity": {}, "finished": True},
        {"identity": {}, "finished": False, "progress": [1]},
    ],
)
def test_checkpoints_that_hold_something_else(
    tiny_screen: ad.AnnData, tmp_path: Path, state: dict[str, Any]
) -> None:
    write_state(tmp_path / "latent.checkpoint", state)
    with pytest.raises(CellditError, match=r"holds no state|another training"):
        CellDiT(tiny_screen, "modules").train(1, checkpoint_dir=tmp_path)


def test_a_pipe_among_checkpoints(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "latent.checkpoint")
    with pytest.raises(FileError, match="no plain file"):
        CellDiT(tiny_screen, "modules").train(1, checkpoint_dir=tmp_path)
