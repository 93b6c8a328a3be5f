"""One writer at a time for a folder or file, told apart from writers that died.

The lock is the operating system's, on a hidden file beside the target: it ends with the process
that holds it, however that ends, so what a killed process leaves behind locks nobody out.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from celldit.errors import FileError

try:
    import fcntl
except ImportError:  # Windows: a second writer is not noticed there.
    fcntl = None  # type: ignore[assignment]


_held: dict[Path, int] = {}
_guard = threading.Lock()


@contextmanager
def sole_writer(target: str | os.PathLike[str], *, inside: bool = False) -> Iterator[None]:
    """Be the only process that writes into a folder or file; again in the same thread is fine.

    The target need not exist yet; its parent folder is made. If it is a folder that stays, it can
    hold the lock itself, `inside`: it is made, and its parent need not be writable.

    FileError if another process writes there, naming it, or the lock cannot be placed.
    """
    path = Path(os.path.abspath(target))
    lock = path / ".lock" if inside else path.with_name(f".{path.name}.lock")
    owner = threading.get_ident()
    with _guard:
        nested = _held.get(lock) == owner
    if nested or fcntl is None:
        yield
        return
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(lock, path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"Cannot write into {lock.parent}: {error.strerror}.") from error
    with _guard:
        _held[lock] = owner
    try:
        yield
    finally:
        with _guard:
            _held.pop(lock, None)
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _acquire(lock: Path, target: Path) -> int:
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(lock, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise FileError(
                f"{target} is being written by another process{f' ({holder})' if holder else ''}; "
                "wait until it has finished, or choose another path."
            ) from None
        except OSError:
            # A file system without locks: writing still is whole or not at all.
            return descriptor
        # The holder before us may have removed the file between our opening and locking it.
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
        os.close(descriptor)


def is_first_process() -> bool:
    """Whether torchrun, SLURM or Lightning, if any of them, started this as the first process.

    Their variables say so; torch is not needed.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    names = ("LOCAL_RANK", "NODE_RANK") if "LOCAL_RANK" in os.environ else ("SLURM_PROCID",)
    return all(int(os.environ.get(name, 0)) == 0 for name in names)
