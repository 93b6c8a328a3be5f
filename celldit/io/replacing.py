"""Files and folders that appear when they are whole, in the place of old ones, in one step.

What a killed process leaves behind is a hidden folder ``.NAME.writing-…``, which the next writer
removes.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from celldit.errors import FileError
from celldit.io.locks import sole_writer

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def made_whole(path: str | os.PathLike[str], *, alone: bool = True) -> Iterator[Path]:
    """Give a temporary name for a file or folder, which takes the name when all went well.

    The temporary one has the ending of `path`, and lies beside it in a folder of its own; missing
    folders are made. If `alone`, no other process writes there meanwhile. FileError if the disk
    cannot take it, or another process writes; what was at `path` is there still.
    """
    target = Path(path)
    prefix = f".{target.name}.writing-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(target) if alone else nullcontext():
            # As the only writer: what killed processes left behind.
            for left_over in target.parent.glob(f"{glob.escape(prefix)}*") if alone else ():
                shutil.rmtree(left_over, ignore_errors=True)
            try:
                folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
            except OSError as error:
                raise FileError(f"Cannot write into {target.parent}: {error.strerror}.") from error
            try:
                partial = folder / f"partial{target.suffix}"
                yield partial
                _sync(partial)
                take_place(partial, target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"Cannot write {target}: {error.strerror or error}.") from error


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


def _sync(path: Path) -> None:
    """Ask the disk to keep a file, or all in a folder."""
    for one in [path, *sorted(path.rglob("*"))]:
        if one.is_file():
            with one.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(one)


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
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # TypeError on Windows
        return False
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(two))
