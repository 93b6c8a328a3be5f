"""Memory: what is free goes back to the operating system, and too little of it is said."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from celldit.errors import OutOfMemoryError, reason_of

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: How torch says that it got no memory, which it raises as a RuntimeError.
_TORCH = ("can't allocate memory", "out of memory")


@contextmanager
def within_memory() -> Iterator[None]:
    """Say in celldit's words that memory did not suffice, with the bound that was hit.

    OutOfMemoryError in place of a MemoryError, or of what torch raises.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except (MemoryError, RuntimeError) as error:
        reason = reason_of(error)
        if isinstance(error, RuntimeError) and not any(word in reason for word in _TORCH):
            raise
        n_bytes, limit = bound()
        raise OutOfMemoryError(
            f"There is not enough memory ({reason}); {limit} is {n_bytes / 1e9:,.1f} GB. Use fewer "
            "cells or genes or a smaller batch_size, train from disk with celldit.open_store, or "
            "take a larger machine."
        ) from error


def bound() -> tuple[float, str]:
    """The smallest bound on this process's memory in bytes, and whose it is."""
    bounds = {"the memory of this machine": float("inf")}
    with suppress(ValueError, OSError, AttributeError):
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        bounds["the memory of this machine"] = float(pages)
    with suppress(ValueError, OSError):
        bounds["the limit of this container"] = float(
            Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")
        )
    if resource is not None:
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            bounds["the limit of this process (ulimit -v)"] = float(most)
    limit = min(bounds, key=lambda name: bounds[name])
    return bounds[limit], limit


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
