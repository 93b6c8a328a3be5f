"""On a GPU a loss is looked at one step later, and before anything is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from celldit.errors import TrainingError
from celldit.training.loop.finite import FiniteLoss

NAN = float("nan")


def loss(value: float, *, is_cuda: bool) -> Any:
    return SimpleNamespace(is_cuda=is_cuda, detach=lambda: torch.tensor(value))


def step(
    watch: FiniteLoss, number: int, value: float, *, is_cuda: bool, world_size: int = 1
) -> None:
    trainer: Any = SimpleNamespace(global_step=number, world_size=world_size)
    batch = SimpleNamespace(x1_BKD=watch.latents[number : number + 1])
    watch.on_train_batch_start(trainer, None, batch, number)
    watch.on_before_backward(trainer, None, loss(value, is_cuda=is_cuda))


@pytest.fixture
def watch() -> FiniteLoss:
    cells: Any = SimpleNamespace(names=np.array(["cell0", "cell1", "cell2"]))
    watch = FiniteLoss(cells)
    watch.latents = torch.arange(3.0).reshape(3, 1, 1)
    return watch


def test_a_cpu_stops_before_the_step(watch: FiniteLoss) -> None:
    step(watch, 0, 1.0, is_cuda=False)
    with pytest.raises(TrainingError, match=r"became nan at step 1, .* 1 cells \('?cell1"):
        step(watch, 1, NAN, is_cuda=False)


def test_a_gpu_stops_one_step_later_and_names_the_cells_of_the_step(watch: FiniteLoss) -> None:
    step(watch, 0, 1.0, is_cuda=True)
    step(watch, 1, NAN, is_cuda=True)
    with pytest.raises(TrainingError, match=r"became nan at step 1, .* 1 cells \('?cell1"):
        step(watch, 2, 1.0, is_cuda=True)


def test_of_several_gpus_each_stops_before_the_step(watch: FiniteLoss) -> None:
    with pytest.raises(TrainingError, match="step 1"):
        step(watch, 1, NAN, is_cuda=True, world_size=2)


@pytest.mark.parametrize("hook", ["on_save_checkpoint", "on_train_epoch_end"])
def test_nothing_is_kept_from_after_such_a_loss(watch: FiniteLoss, hook: str) -> None:
    step(watch, 1, NAN, is_cuda=True)
    with pytest.raises(TrainingError, match="step 1"):
        getattr(watch, hook)(SimpleNamespace(), None)
    getattr(watch, hook)(SimpleNamespace(), None)  # said once
