"""Latents of all training cells, encoded once for stage two: in memory, or in a mapped file."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from celldit.data.store import CellStore
from celldit.errors import FileError
from celldit.latent.autoencoder import Autoencoder

try:
    import fcntl
except ImportError:  # Windows: what killed runs leave behind stays there.
    fcntl = None  # type: ignore[assignment]


_PREFIX, _LOCK = "celldit-latents-", ".lock"
#: Bytes that must stay free beside the latents.
SPARE = 1 << 26


class LatentFile:
    """Latents in a ``.npy`` file, float32, shape (N, K, D), read where they are asked for.

    Mapped pages count as resident memory for as long as they are mapped in, with neighbours that
    nobody asked for, so the file is mapped for each reading anew; the operating system keeps its
    pages cached while it has room.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        mapped = np.lib.format.open_memmap(path, mode="r")
        self.shape: tuple[int, ...] = mapped.shape
        self._offset: int = mapped.offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray | Tensor | slice) -> Tensor:
        """Read some rows, shape (n, K, D)."""
        mapped = np.memmap(self._path, "<f4", "r", self._offset, self.shape)
        rows = index.numpy() if isinstance(index, Tensor) else index
        return torch.from_numpy(np.array(mapped[rows]))


@contextmanager
def encoded_once(
    autoencoder: Autoencoder, cells: CellStore, folder: Path | None = None
) -> Iterator[Tensor | LatentFile]:
    """Encode all N cells, (N, K, D); those on disk into a file that goes with the context.

    It lies in `folder`, by default the system's for temporary files (``TMPDIR``). FileError if
    there is no room; says how much is needed, and where.
    """
    if not cells.on_disk:
        yield autoencoder.encode(cells)
        return
    shape = cells.n_cells, autoencoder.n_tokens, autoencoder.token_dim
    place = Path(tempfile.gettempdir()) if folder is None else folder
    check_room(place, 4 * int(np.prod(shape)))
    _remove_left_over(place)
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    # Where it can, the lock tells whether the process that made the folder still lives.
    holding = os.open(scratch / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    _try_lock(holding)
    try:
        path = scratch / "latents.npy"
        try:
            _write(path, autoencoder, cells, shape)
        except OSError as error:
            if isinstance(error, FileError) or error.errno != errno.ENOSPC:
                raise
            raise _no_room(place, 4 * int(np.prod(shape))) from error
        yield LatentFile(path)
    finally:
        os.close(holding)
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_left_over(place: Path) -> None:
    """Remove the latents of runs that were killed; those of others, and of runs that live, stay."""
    if fcntl is None:
        return
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _try_lock(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Whether this process holds the lock of a file now; others let go of theirs when they end."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def check_room(place: Path, n_bytes: int) -> None:
    """Raise FileError if a folder has no room for so many bytes."""
    if shutil.disk_usage(place).free < n_bytes + SPARE:
        raise _no_room(place, n_bytes)


def _no_room(place: Path, n_bytes: int) -> FileError:
    free = shutil.disk_usage(place).free
    return FileError(
        f"The latents of the training cells need {_size(n_bytes + SPARE)} in {place}, where "
        f"{_size(free)} are free; make room, or set the environment variable TMPDIR to a folder "
        "on a larger disk."
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _write(
    path: Path, autoencoder: Autoencoder, cells: CellStore, shape: tuple[int, int, int]
) -> None:
    # Written as a stream, not through the map: a full disk then is an error, not a crash.
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in cells.blocks(autoencoder.batch_size):
            file.write(autoencoder.encode(batch).numpy().astype("<f4", copy=False).tobytes())
