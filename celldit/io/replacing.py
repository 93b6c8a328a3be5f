"""Put a finished file or folder in the place of an old one, in one step."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["sync_folder", "take_place"]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def take_place(finished: Path, target: Path) -> None:
    """Give `finished` the name `target`; whoever looks sees the old or the new, never neither.

    An old folder ends up under the name of `finished`, for the caller to remove. Where the system
    cannot exchange two names in one step (Linux can), there is a moment between two renames.

    OSError if the names cannot be changed; what was at `target` is there still.
    """
    if not (target.is_dir() and not target.is_symlink()):
        os.replace(finished, target)
    elif not _exchange(finished, target):
        aside = finished.with_name(f"{finished.name}.old")
        target.rename(aside)
        try:
            finished.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        with suppress(OSError):
            aside.rename(finished)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Ask the disk to keep the names in a folder; not every file system can be asked."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(one: Path, two: Path) -> bool:
    """Swap two names; False where this system or file system has no such call."""
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(two))


@cache
def _renameat2() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call
