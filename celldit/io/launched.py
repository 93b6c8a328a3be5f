"""Which of several processes this is, by the variables that a launcher sets; needs no torch."""

from __future__ import annotations

import os

__all__ = ["is_first_process"]


def is_first_process() -> bool:
    """Whether torchrun, SLURM or Lightning, if any of them, started this as the first process."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    names = ("LOCAL_RANK", "NODE_RANK") if "LOCAL_RANK" in os.environ else ("SLURM_PROCID",)
    return all(int(os.environ.get(name, 0)) == 0 for name in names)
