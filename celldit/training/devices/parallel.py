"""Several processes, one batch: each takes its share of the batch that a single one would draw."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from celldit.arguments import check_whole
from celldit.errors import InputError, closest

# celldit's own strategy has the first of these names; the others would lose the moving average.
SHARDED = ("fsdp", "deepspeed", "modelparallel")


def rank_and_world() -> tuple[int, int]:
    """Number of this process and of all processes; (0, 1) when there is only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def uses_cuda(arguments: Mapping[str, Any]) -> bool:
    """Whether Lightning's Trainer will take a CUDA device with these arguments."""
    kind = arguments.get("accelerator", "auto")
    return kind in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def device_of(arguments: Mapping[str, Any]) -> torch.device:
    """Where this process computes beside Lightning's Trainer with these arguments."""
    if not uses_cuda(arguments):
        return torch.device("cpu")
    rank, devices = os.environ.get("LOCAL_RANK"), arguments.get("devices")
    if isinstance(devices, (list, tuple)):
        return torch.device("cuda", devices[int(rank or 0)])
    # Without a launcher there is one process, whose device is the present one.
    return torch.device("cuda") if rank is None else torch.device("cuda", int(rank))


def check_devices(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of Lightning's Trainer for more devices than there are, before any work.

    InputError if that is no number of devices or machines, there are not as many devices, or the
    strategy shards the weights.
    """
    kind, wanted = arguments.get("accelerator", "auto"), arguments.get("devices", "auto")
    strategy = arguments.get("strategy", "auto")
    name = strategy if isinstance(strategy, str) else type(strategy).__name__.lower()
    if name != SHARDED[0] and any(sharded in name.replace("_", "") for sharded in SHARDED):
        raise InputError(
            f"strategy={name!r} is not supported: it knows nothing of the moving average of the "
            'weights; use strategy="fsdp" to split the weights, or strategy="ddp".'
        )
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    _check_name("strategy", strategy, ["auto", *StrategyRegistry.available_strategies()])
    _check_name(
        "accelerator", kind, ["auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators())]
    )
    check_whole(arguments.get("num_nodes", 1), "num_nodes")
    # A list with a comma names single devices, and -1 stands for all.
    number = r"auto|-1|0*[1-9]\d*|\d+,|\d+(,\d+)+"
    if isinstance(wanted, (int, str)) and not re.fullmatch(number, str(wanted).replace(" ", "")):
        raise InputError(
            f"devices={wanted!r} is no number of devices; use devices=1, or 'auto' for Lightning's "
            "choice."
        )
    if not isinstance(kind, str):
        return
    if kind in ("gpu", "cuda") and not torch.cuda.is_available() and not _has_mps(kind):
        raise InputError(f'accelerator={kind!r}, but torch finds no GPU; use accelerator="cpu".')
    if uses_cuda(arguments):
        available, what = torch.cuda.device_count(), "GPU"
    elif kind in ("auto", "cpu"):
        available, what = os.cpu_count() or 1, "CPU core"
    else:
        return
    if isinstance(wanted, str) and wanted.isdigit():
        wanted = int(wanted)
    if not isinstance(wanted, (int, list, tuple)):
        return
    requested = max(wanted, default=0) + 1 if isinstance(wanted, (list, tuple)) else wanted
    if requested > available:
        raise InputError(
            f"devices={wanted} asks for {requested}, but this machine has {available} "
            f"{what}{'' if available == 1 else 's'}; use devices={available} or less."
        )


def _check_name(argument: str, name: object, known: Sequence[str]) -> None:
    """Refuse a name that Lightning would stumble over, after the data were read."""
    if isinstance(name, str) and name not in known:
        near = closest(name, known)
        raise InputError(
            f"{argument}={name!r} is not known to Lightning; use "
            f"{f'{argument}={near!r}' if near else ' or '.join(map(repr, known[:6]))}."
        )


def _has_mps(kind: str) -> bool:
    return kind == "gpu" and torch.backends.mps.is_available()
