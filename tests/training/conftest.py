"""What tests of training share."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch


def _as_rank(rank: int, port: int, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    # CUDA cannot go on in a forked process, and Lightning asks it for its random numbers.
    torch.cuda.is_available = lambda: False
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
    }
    target(*arguments)


@pytest.fixture(scope="session")
def in_two_processes() -> Callable[..., None]:
    """Call a function in two processes at once, as a launcher of two devices would."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core only")

    def call(target: Callable[..., None], *arguments: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        fork = multiprocessing.get_context("fork")
        processes = [
            fork.Process(target=_as_rank, args=(rank, port, target, arguments), daemon=True)
            for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0]

    return call
