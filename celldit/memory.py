"""Memory that is free goes back to the operating system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

__all__ = ["give_back"]


def give_back() -> None:
    """Return the pages that hold nothing, where the C library can (glibc); elsewhere do nothing.

    glibc keeps what was freed for the next allocation of the same kind. Blocks of cells are of many
    sizes, so training from disk would in the end hold several times the memory that it uses.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
