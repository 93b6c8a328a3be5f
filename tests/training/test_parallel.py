"""Several processes do what one does with the same global batch."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from celldit import CellDiT
from celldit.errors import InputError
from celldit.latent import LatentConfig
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig
from celldit.training.devices.parallel import check_devices
from celldit.training.devices.sharding import ShardedStrategy
from celldit.training.loop.trainer import trainer_defaults
from celldit.training.saving.checkpoints import is_main_process
from celldit.training.saving.state_file import read_state, write_state

# Neither 65 cells nor 33 pairs are even: shares differ between the processes.
CONFIG = TrainingConfig(flow_steps_per_epoch=5, n_trials=1, flow_batch=33, least_gain=0)


class Losses(pl.Callback):
    """Collects the loss of every step, as each process computes it."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def train(adata: ad.AnnData, folder: Path, **arguments: Any) -> None:
    """Train and write losses and weights to a file, one for each process."""
    torch.set_num_threads(1)
    model = CellDiT(
        adata,
        "modules",
        LatentConfig(n_dims=6, token_dim=3),
        dit=DiTConfig(width=16, depth=1, n_heads=2, dropout=0.0),
    )
    losses = Losses()
    model.train(
        2,
        config=arguments.pop("config", CONFIG),
        enable_progress_bar=False,
        accelerator="cpu",
        callbacks=[losses],
        checkpoint_dir=folder / "checkpoints",
        checkpoint_minutes=0.0,
        **arguments,
    )
    trained = model.trained
    weights = {**trained.autoencoder.state_dict(), **trained.flow.state_dict()}
    rank = os.environ.get("LOCAL_RANK", "0")
    content = {
        "losses": losses.losses,
        "weights": weights,
        "flow_weight": model.flow_weight,
        "course": [row["epoch"] for row in model.history["flow"]],
    }
    write_state(folder / f"rank{rank}", content)


def train_two(adata: ad.AnnData, folder: Path, strategy: str) -> None:
    train(adata, folder, devices=2, strategy=strategy)


@pytest.fixture(scope="module")
def one_run(_tiny_screen: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("one")
    train(_tiny_screen, folder)
    return read_state(folder / "rank0")


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def runs(
    request: pytest.FixtureRequest,
    one_run: dict[str, Any],
    in_two_processes: Callable[..., None],
    _tiny_screen: ad.AnnData,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(train_two, _tiny_screen, folder, request.param)
    names = {"first": "rank0", "second": "rank1"}
    return {"one": one_run, **{name: read_state(folder / path) for name, path in names.items()}}


def test_two_processes_have_the_loss_of_one(runs: dict[str, dict[str, Any]]) -> None:
    one, first, second = (np.array(run["losses"]) for run in runs.values())
    # A trial and the final run of at most 10 steps.
    assert len(one) == len(first) >= 15
    np.testing.assert_allclose((first + second) / 2, one, atol=1e-4, rtol=1e-4)
    assert np.abs(first - second).max() > 1e-3  # each saw its own share


def test_two_processes_end_at_the_weights_of_one(runs: dict[str, dict[str, Any]]) -> None:
    one, first, second = (run["weights"] for run in runs.values())
    for name, weight in one.items():
        # The moving average, too: it is what the flow's weights are in the end.
        torch.testing.assert_close(first[name], weight, atol=1e-4, rtol=1e-4)
        assert torch.equal(first[name], second[name]), name
    assert (
        runs["one"]["flow_weight"] == runs["first"]["flow_weight"] == runs["second"]["flow_weight"]
    )


def test_processes_that_lightning_starts_bring_back_what_they_learned(
    one_run: dict[str, Any], tiny_screen: ad.AnnData, tmp_path: Path
) -> None:
    """As it does in notebooks, where no launcher can."""
    process = multiprocessing.get_context("fork").Process(
        target=_forking, args=(tiny_screen, tmp_path)
    )
    process.start()
    process.join(180)
    assert process.exitcode == 0
    found = read_state(tmp_path / "rank0")
    for name, weight in one_run["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, atol=1e-4, rtol=1e-4)
    assert found["flow_weight"] == one_run["flow_weight"]
    assert found["course"] == one_run["course"]


def _forking(adata: ad.AnnData, folder: Path) -> None:
    torch.cuda.is_available = lambda: False  # a forked process cannot go on with it
    train_two(adata, folder, "ddp_fork")


def test_the_flow_is_in_shards() -> None:
    chosen = [trainer_defaults({"strategy": "fsdp"}, "flow")["strategy"] for _ in range(2)]
    assert all(isinstance(strategy, ShardedStrategy) for strategy in chosen)
    assert chosen[0] is not chosen[1]  # Lightning gives each Trainer's strategy its own state


def test_accumulated_gradients_take_fewer_steps(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    from celldit.training.flow_stage import FlowStage

    counts = []
    average = FlowStage.average_weights

    def spy(self: FlowStage) -> None:
        counts.append(self.n_steps)
        average(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlowStage, "average_weights", spy)
        train(tiny_screen, tmp_path, accumulate_grad_batches=2)
    # 5 batches an epoch are 3 steps; the moving average follows steps.
    assert set(counts) == {6}
    assert len(counts) in (6 + 3, 6 + 6)


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_launcher_says_who_writes(
    variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() is first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"devices": 4096, "accelerator": "cpu"}, r"devices=4096 asks for 4096, but this machine"),
        ({"devices": "4096", "accelerator": "cpu"}, "asks for 4096"),
        ({"devices": "both"}, "devices='both' is no number of devices; use devices=1, or 'auto'"),
        ({"devices": 0, "accelerator": "cpu"}, "devices=0 is no number of devices"),
        ({"devices": "0"}, "devices='0' is no number of devices"),
        ({"num_nodes": 0}, "num_nodes=0 must be a whole number of at least 1"),
        ({"strategy": "deepspeed"}, r"'deepspeed' is not supported.*use strategy=\"fsdp\""),
        ({"strategy": "fsdp_cpu_offload"}, "'fsdp_cpu_offload' is not supported"),
        ({"strategy": FSDPStrategy()}, "'fsdpstrategy' is not supported"),
        ({"strategy": ModelParallelStrategy()}, "'modelparallelstrategy' is not supported"),
    ],
)
def test_what_is_not_there_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_devices(arguments)


def test_a_gpu_that_is_not_there_is_refused(
    tiny_model: CellDiT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="accelerator='cuda', but torch finds no GPU"):
        tiny_model.train(1, accelerator="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"devices=3 asks for 3, .* has 2 GPUs; use devices=2"):
        tiny_model.train(1, devices=3)
    with pytest.raises(InputError, match="has 2 GPUs"):
        check_devices({"accelerator": "gpu", "devices": [0, 5]})
    check_devices({"accelerator": "gpu", "devices": 2})


def test_loggers_of_lightning_are_taken(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path, name="log")
    train(tiny_screen, tmp_path, logger=logger, log_every_n_steps=1)
    text = Path(logger.log_dir, "metrics.csv").read_text()
    assert {"velocity_error"} <= set(text.splitlines()[0].split(","))


@pytest.mark.parametrize(("setting", "compiled"), [("on", True), ("auto", False), ("off", False)])
def test_compilation_is_for_cuda_unless_asked_for(
    tiny_screen: ad.AnnData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    compiled: bool,
) -> None:
    made = []

    def compile_(function: Any) -> Any:
        made.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    config = TrainingConfig(flow_steps_per_epoch=1, n_trials=0, compile=setting)
    train(tiny_screen, tmp_path, config=config)
    assert bool(made) is compiled


def test_half_precision_is_for_the_flow_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(half: bool = True, **arguments: str) -> str | None:
        return trainer_defaults(arguments, "flow", half=half).get("precision")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert chosen() == "bf16-mixed"
    assert chosen(precision="32-true") == "32-true"
    assert chosen(accelerator="cpu") is None
    assert chosen(half=False) is None
