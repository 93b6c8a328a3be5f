"""How many threads torch may use.

Latent tokens of a small screen make small matrices, on which threads cost more than they gain: two
busy OpenMP threads on two busy cores were measured 5 to 20 times slower than one. celldit therefore
computes with one thread on the CPU unless the environment variable ``CELLDIT_THREADS`` says
otherwise, and gives torch its own setting back afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from celldit.errors import InputError

VARIABLE = "CELLDIT_THREADS"


@contextmanager
def threads() -> Iterator[int]:
    """Compute with the number of threads meant for celldit while the context lasts."""
    text = os.environ.get(VARIABLE, "1")
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{VARIABLE}={text!r} must be a whole number of at least 1.")
    before = torch.get_num_threads()
    torch.set_num_threads(int(text))
    try:
        yield int(text)
    finally:
        torch.set_num_threads(before)
