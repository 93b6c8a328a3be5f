"""Freed memory goes back to the operating system."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

from celldit import memory


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(memory._trim() is None, reason="only glibc can")
def test_what_was_freed_goes_back() -> None:
    memory.give_back()
    blocks = [np.ones(12_000) for _ in range(2_000)]  # too small to be mapped one by one
    pins = [np.ones(100) for _ in range(10)]
    full = resident()
    del blocks
    memory.give_back()
    assert full - resident() > 0.9 * 2_000 * 12_000 * 8
    assert len(pins) == 10


def test_where_the_library_cannot_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """A C library without malloc_trim."""

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Other())
    memory._trim.cache_clear()
    try:
        assert memory._trim() is None
        memory.give_back()
    finally:
        memory._trim.cache_clear()
