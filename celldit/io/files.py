"""Files in and out: read with one sentence about what is wrong, written whole or not at all."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celldit.arguments import check_path, check_plain
from celldit.errors import FileError, InputError, examples
from celldit.io.replacing import made_whole

if TYPE_CHECKING:
    import anndata as ad

_MAX_TOML = 1_000_000


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with made_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_h5ad(path: str | os.PathLike[str], adata: ad.AnnData) -> None:
    """Write an AnnData, compressed, whole or not at all."""
    with made_whole(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip")


def read_h5ad(path: str | os.PathLike[str]) -> ad.AnnData:
    """Read an ``.h5ad`` file into memory.

    FileError if there is no such file, it does not hold an AnnData, or a matrix in it is damaged.
    """
    from celldit.data.disk.files import read_whole

    source = check_path(path)
    if not source.exists():
        raise FileError(f"There is no file {source}; check the path.")
    if source.is_dir():
        raise FileError(f"{source} is a folder, where an .h5ad file is needed.")
    # Only commands of the terminal read whole files.
    remedy = (
        "give fewer cells, or, to celldit train, a .zarr or a folder of .h5ad files, which stay "
        "on disk"
    )
    return read_whole(source, remedy)


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of settings.

    FileError if there is none, it is no plain file, is too large for settings, or is not TOML.
    """
    source = check_path(path)
    if not source.exists():
        raise FileError(f"There is no settings file {source}; check the path.")
    check_plain(source)
    try:
        with source.open("rb") as file:
            raw = file.read(_MAX_TOML + 1)
        if len(raw) > _MAX_TOML:
            raise FileError(f"{source} has more than 1 MB, which no settings have; check the path.")
        return tomllib.loads(raw.decode("utf-8"))
    except FileError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{source} cannot be read as TOML ({error}).") from error


def check_page(path: str | os.PathLike[str]) -> Path:
    """Refuse a path that no page can have: InputError unless it ends in ``.html``."""
    page = check_path(path)
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"The page {str(page)!r} must end in .html, such as 'report.html'.")
    return page


def refuse_existing(
    paths: Iterable[str | os.PathLike[str]], *, overwrite: bool, how: str = "--overwrite"
) -> None:
    """Refuse outputs that exist already, before any work starts.

    FileError names them, and says with `how` to replace them.
    """
    found = [path for path in map(Path, paths) if path.exists()]
    folders = [path for path in found if path.is_dir()]
    if folders:
        raise FileError(
            f"{folders[0]} is a folder, where a file is to be written; name a file in it."
        )
    if found and not overwrite:
        verb = "exists" if len(found) == 1 else "exist"
        raise FileError(
            f"{examples(found)} {verb} already; choose another path, or replace with {how}."
        )
