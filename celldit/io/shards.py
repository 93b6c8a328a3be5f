"""A large prediction in pieces, made by any number of processes, and gone on with after any stop.

The cells of a request are cut into shards of whole tiles, so that each cell has the bytes that it
has in a prediction in one piece. A shard is one file; it appears when it is whole, and one that is
there is not made again. ``request.json`` says what the folder holds, and keeps out anything else.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from celldit.arguments import check_path, check_plain
from celldit.errors import FileError, InputError
from celldit.io.replacing import made_whole
from celldit.io.sampling import TILE, Sampling, collect
from celldit.io.stream import check_out, open_on_disk, stream

REQUEST = "request.json"


@dataclass(frozen=True)
class Shard:
    """One of several pieces, of which the first has the number 1."""

    number: int
    of: int

    def __post_init__(self) -> None:
        whole = all(type(n) is int for n in (self.number, self.of))
        if not whole or not 1 <= self.number <= self.of:
            raise InputError(
                f"shard {self.number}/{self.of} is none; write 1/8 for the first of eight."
            )

    @classmethod
    def parse(cls, text: str | tuple[int, int]) -> Shard:
        """Read ``"2/8"`` or ``(2, 8)``.

        InputError if it is neither.
        """
        if isinstance(text, tuple) and len(text) == 2:
            return cls(*text)
        numbers = str(text).split("/")
        if len(numbers) != 2 or not all(n.strip().isdigit() for n in numbers):
            raise InputError(f"shard={text!r} must be like '2/8', the second of eight shards.")
        return cls(*(int(n) for n in numbers))

    @property
    def file_name(self) -> str:
        """Name of its file."""
        return f"shard-{self.number:05d}-of-{self.of:05d}.h5ad"

    def rows(self, n_cells: int) -> range:
        """Positions of its cells; shards differ by a tile at most.

        InputError if there are fewer tiles than shards.
        """
        n_tiles = -(-n_cells // TILE)
        if self.of > n_tiles:
            raise InputError(
                f"{n_cells:,} cells make at most {n_tiles} shards of {TILE} cells or more, not "
                f"{self.of}; ask for fewer."
            )
        edges = [TILE * (n_tiles * i // self.of) for i in (self.number - 1, self.number)]
        return range(edges[0], min(edges[1], n_cells))


@dataclass(frozen=True)
class Output:
    """Where predicted cells go: into memory, a checked `path`, or one `shard` of that folder."""

    path: Path | None = None
    shard: Shard | None = None

    @classmethod
    def of(
        cls,
        out: str | os.PathLike[str] | None,
        overwrite: bool,
        shard: str | tuple[int, int] | None = None,
    ) -> Output:
        """Check what users say of it; raises as :func:`check_out` and :func:`check_folder`."""
        if shard is None:
            return cls(check_out(out, overwrite))
        piece = Shard.parse(shard)
        return cls(check_folder(out), piece)

    def deliver(self, sampling: Sampling) -> ad.AnnData:
        """Sample the cells; what lies on disk has its X and layers left there."""
        if self.path is None:
            return collect(sampling)
        if self.shard is None:
            return stream(sampling, self.path)
        return deliver_shard(sampling, self.path, self.shard)


def check_folder(path: str | os.PathLike[str] | None) -> Path:
    """Make the folder for shards, before any cell is sampled.

    InputError if no folder is named. FileError if it cannot be made or written.
    """
    if path is None:
        raise InputError('shard= needs a folder to write to, out="predicted/".')
    folder = check_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"Cannot make the folder {folder}: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise FileError(f"Cannot write into {folder}; choose another folder.")
    return folder


def deliver_shard(sampling: Sampling, folder: Path, shard: Shard) -> ad.AnnData:
    """Sample one shard of a request into its file, unless it exists; X and layers are left on disk.

    InputError if there are fewer tiles than shards. FileError if the folder holds another request,
    or the disk cannot take the file.
    """
    rows = shard.rows(sampling.n_cells)
    _claim(folder, sampling, shard.of)
    path = folder / shard.file_name
    return open_on_disk(path) if path.exists() else stream(cut(sampling, rows), path)


def cut(sampling: Sampling, rows: range) -> Sampling:
    """The cells at some positions, which begin at a multiple of a tile."""
    assert rows.start % TILE == 0
    return replace(
        sampling,
        obs=sampling.obs.iloc[rows.start : rows.stop],
        sample=lambda at: sampling.sample(at + rows.start),
    )


def _claim(folder: Path, sampling: Sampling, n_shards: int) -> None:
    """Write what the folder holds, or refuse when it holds something else."""
    names = hashlib.sha256("\0".join(map(str, sampling.obs.index)).encode()).hexdigest()[:12]
    own = {"shards": n_shards, "n_cells": sampling.n_cells, "cells": names}
    # The same values as JSON gives them back.
    own |= json.loads(json.dumps(dict(sampling.made_by.get("made_by", {})), default=_plain))
    root = _read(folder / REQUEST)
    if root is None:
        # Other processes write the same, perhaps at this moment.
        with made_whole(folder / REQUEST, alone=False) as temporary:
            temporary.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")
        return
    different = [
        f"{key} ({root.get(key)!r} there, {own.get(key)!r} here)"
        for key in dict.fromkeys([*own, *root])
        if root.get(key) != own.get(key)
    ]
    if different:
        raise FileError(
            f"{folder} holds shards of another request, which differs in {'; '.join(different)}; "
            "choose another folder."
        )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    check_plain(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} cannot be read ({error}); delete it and its shards.") from error
    if not isinstance(content, dict) or not isinstance(content.get("shards"), int):
        raise FileError(f"{path} does not describe shards; delete it and its shards.")
    return content


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
