"""Where celldit computes, and with how many threads.

Latent tokens of a small screen make small matrices, on which threads cost more than they gain: two
busy OpenMP threads on two busy cores were measured 5 to 20 times slower than one. That holds for
numpy's and scipy's products and decompositions in the effect prior as it does for the network. So
celldit computes with one thread on the CPU unless the environment variable ``CELLDIT_THREADS`` says
otherwise, and gives every library its own setting back afterwards.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController

from celldit.errors import InputError
from celldit.memory import within_memory

VARIABLE = "CELLDIT_THREADS"


one_at_a_time = threading.RLock()
"""Held by a training: torch's random numbers and threads are the process's.

Another one, called in a thread beside, waits, and ends at the weights that it would have had alone.
"""


@contextmanager
def threads() -> Iterator[int]:
    """Compute with the number of threads meant for celldit while the context lasts."""
    text = os.environ.get(VARIABLE, "1")
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{VARIABLE}={text!r} must be a whole number of at least 1.")
    n_threads, before = int(text), torch.get_num_threads()
    libraries = _libraries(len(sys.modules))
    with libraries.limit(limits=n_threads), within_memory():
        torch.set_num_threads(n_threads)
        try:
            yield n_threads
        finally:
            torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> ThreadpoolController:
    """Those that have threads; looked for again, which takes long, where more was imported."""
    return ThreadpoolController()


def check_device(device: str | torch.device) -> torch.device:
    """Read the name of a device; InputError if it is none, or this machine does not have it."""
    try:
        named = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"device={device!r} is none that torch knows; use 'cpu' or 'cuda'."
        ) from error
    # Not Apple's GPUs: what scatters cells about their states is in double precision.
    available = {"cpu": 1, "cuda": torch.cuda.device_count()}
    n_available = available.get(named.type, 0)
    if n_available == 0:
        raise InputError(f"device={device!r}: celldit finds no such device here; use 'cpu'.")
    if (named.index or 0) >= n_available:
        raise InputError(
            f"device={device!r}: this machine has {n_available}, counted from 0; use "
            f"'{named.type}:{n_available - 1}' or less."
        )
    return named
