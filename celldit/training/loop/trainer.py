"""Lightning's Trainer: which arguments it may be given, celldit's defaults, and its chatter."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch

from celldit.errors import InputError, closest
from celldit.progress import speaks
from celldit.training.devices.parallel import check_devices, uses_cuda
from celldit.training.devices.sharding import ShardedStrategy
from celldit.training.loop.progress import StageProgress


def check_trainer_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse names that Lightning's Trainer does not know, and devices that there are not.

    InputError names the closest that it knows.
    """
    known = set(inspect.signature(pl.Trainer).parameters) - {"self", "max_epochs"}
    own = ("max_epochs", "seed", "config", "checkpoint_dir", "checkpoint_minutes")
    for name in arguments:
        if name not in known:
            near = closest(name, [*own, *sorted(known)])
            hint = f"; did you mean {near!r}?" if near else "."
            raise InputError(f"train() and lightning's Trainer have no argument {name!r}{hint}")
    check_devices(arguments)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice out of a biologist's notebook; its errors still come through."""
    loggers = [
        logging.getLogger(name)
        for name in (
            "lightning.pytorch",
            "lightning.fabric",
            "lightning.pytorch.utilities.rank_zero",
        )
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Batches are assembled in memory faster than worker processes could hand them over.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*IterableDataset.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*Mismatch dtype between input and weight.*")
        # The moving average of the weights is never trained, so it stays in evaluation mode.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def halves_on_cuda(arguments: Mapping[str, Any]) -> bool:
    """Whether a Trainer with these arguments computes in bfloat16 autocast on CUDA."""
    return uses_cuda(arguments) and arguments.get("precision") == "bf16-mixed"


def trainer_defaults(
    arguments: Mapping[str, Any], stage: str, *, half: bool = False
) -> dict[str, Any]:
    """The user's Trainer arguments over celldit's defaults, with a progress bar per stage.

    Where CUDA is used and `half`, the stage runs in bfloat16 autocast.
    """
    defaults: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": speaks(),
        "log_every_n_steps": 10,
        "gradient_clip_val": 1.0,
        # Batches are the same for any number of processes, and each takes its share of them.
        "use_distributed_sampler": False,
    }
    if half and uses_cuda(arguments) and torch.cuda.is_bf16_supported():
        defaults["precision"] = "bf16-mixed"
    merged = {**defaults, **arguments}
    if merged.get("strategy") == "fsdp":
        merged["strategy"] = ShardedStrategy()
    merged["callbacks"] = listed(merged.get("callbacks"))
    if merged["enable_progress_bar"]:
        merged["callbacks"].append(StageProgress(stage))
    return merged


def listed(value: Any) -> list[Any]:
    """What may be given alone, several, or not at all, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
