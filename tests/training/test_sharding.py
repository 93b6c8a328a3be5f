"""Weights in shards: each process holds its part, and checkpoints do not know of parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from celldit import CellDiT
from celldit.flow.anchored import AnchoredFlow
from celldit.latent import LatentConfig
from celldit.nn.comparators import MLPConfig, UNetConfig
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig
from celldit.training.flow_stage import FlowStage
from celldit.training.saving.state_file import read_state, write_state

CONFIG = TrainingConfig(flow_steps_per_epoch=4, n_trials=0, flow_batch=33)
NETWORKS = {
    "dit": DiTConfig(width=16, depth=2, n_heads=2, dropout=0.0),
    "mlp": MLPConfig(width=16, depth=2, dropout=0.0),
    "unet": UNetConfig(width=8, dropout=0.0),
}


class Stopped(Exception):
    """Raised between two steps."""


class Watch(pl.Callback):
    """Stops the flow before a step, and measures what one process holds of it."""

    def __init__(self, stop_at: int | None) -> None:
        self.stop_at = stop_at
        self.held: dict[str, list[int]] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if isinstance(pl_module, FlowStage) and trainer.global_step == self.stop_at:
            raise Stopped

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if not isinstance(pl_module, FlowStage):
            return
        weights = list(pl_module.flow.parameters())
        state = trainer.optimizers[0].state
        self.held = {
            "weights": sizes(weights),
            "average": sizes(list(pl_module.ema.module.parameters())),
            "moments": sizes([state[weight]["exp_avg_sq"] for weight in weights]),
        }


def sizes(tensors: list[Tensor]) -> list[int]:
    """Numbers held by this process, and by all."""
    local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    return [sum(t.numel() for t in local), sum(t.numel() for t in tensors)]


def train(
    adata: ad.AnnData,
    folder: Path,
    stop_at: int | None = None,
    network: str = "dit",
    **arguments: Any,
) -> None:
    """Train, from a checkpoint if there is one, and write what the flow ends at."""
    model = CellDiT(
        adata,
        "modules",
        LatentConfig(n_dims=6, token_dim=3),
        dit=NETWORKS[network],
    )
    watch = Watch(stop_at)
    try:
        model.train(
            2,
            config=CONFIG,
            enable_progress_bar=False,
            accelerator="cpu",
            callbacks=[watch],
            checkpoint_dir=folder / "checkpoints",
            checkpoint_minutes=0.0,
            **arguments,
        )
    except Stopped:
        return
    flow = model.trained.flow
    assert all(type(weight) is torch.nn.Parameter for weight in flow.parameters())
    rank = os.environ.get("LOCAL_RANK", "0")
    write_state(folder / f"rank{rank}", {"flow": flow.state_dict(), "held": watch.held})


def train_two(adata: ad.AnnData, folder: Path, stop_at: int | None, network: str) -> None:
    train(adata, folder, stop_at, network, devices=2, strategy="fsdp")


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, weight in one["flow"].items():
        torch.testing.assert_close(other["flow"][name], weight, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_any_number_of_processes_goes_on_from_a_checkpoint(
    network: str, tiny_screen: ad.AnnData, tmp_path: Path, in_two_processes: Callable[..., None]
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    for folder in (straight, stopped):
        folder.mkdir()
    train(tiny_screen, straight, network=network)
    # Two processes to step 2, one to step 5 (in the second epoch), two to the end.
    in_two_processes(train_two, tiny_screen, stopped, 2, network)
    train(tiny_screen, stopped, 5, network)
    assert not (stopped / "rank0").exists()
    in_two_processes(train_two, tiny_screen, stopped, None, network)
    first, second = (read_state(stopped / f"rank{rank}") for rank in (0, 1))
    assert_same(read_state(straight / "rank0"), first)
    assert all(torch.equal(first["flow"][n], second["flow"][n]) for n in first["flow"])
    # Rows of a weight are split, and of an odd number the first process has one more.
    for name, (own, all_) in first["held"].items():
        assert own + second["held"][name][0] == all_, name
        assert 0.4 * all_ < own < 0.6 * all_, name


def test_compilation_that_was_asked_for_is_told_to_stay_off() -> None:
    flow = AnchoredFlow(2, 3, NETWORKS["dit"])
    stage = FlowStage(flow, [], TrainingConfig(compile="on"), 1, 1)
    stage.in_shards = True
    with pytest.warns(UserWarning, match="nothing is compiled"):
        stage.on_fit_start()
    assert stage.velocity == flow.forward
