"""Files in and out: read with one sentence about what is wrong, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from celldit.errors import FileError, examples
from celldit.replacing import sync_folder

if TYPE_CHECKING:
    import anndata as ad

__all__ = ["read_h5ad", "refuse_existing", "whole_file", "write_h5ad", "write_text"]


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside a file, which takes its place when all went well.

    An error or an interruption leaves what was there before, or nothing.

    Parameters
    ----------
    path
        Where the file shall be; missing folders are made.

    Yields
    ------
    pathlib.Path
        Write here; the ending is that of ``path``.

    Raises
    ------
    FileError
        If the folder or the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text, whole or not at all; see :func:`whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_h5ad(path: str | os.PathLike[str], adata: ad.AnnData) -> None:
    """Write an AnnData, compressed, whole or not at all; see :func:`whole_file`."""
    with whole_file(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip")


def read_h5ad(path: str | os.PathLike[str]) -> ad.AnnData:
    """Read an ``.h5ad`` file into memory.

    Raises
    ------
    FileError
        If there is no such file, or it does not hold an AnnData.
    """
    import anndata as ad

    from celldit.data.pointers import check_matrices

    source = Path(path)
    if not source.exists():
        raise FileError(f"There is no file {source}; check the path.")
    if source.is_dir():
        raise FileError(f"{source} is a folder, where an .h5ad file is needed.")
    try:
        with warnings.catch_warnings():
            # Names that repeat are refused later where they matter, in celldit's own words.
            warnings.filterwarnings("ignore", message=".*names are not unique.*")
            warnings.filterwarnings("ignore", category=FutureWarning)
            adata = ad.read_h5ad(source)
        check_matrices(adata, "adata")
        return adata
    except Exception as error:  # a damaged file ends in errors of anndata, h5py, numpy and pandas
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileError(
            f"{source} cannot be read as .h5ad ({reason}); write it again with "
            "adata.write_h5ad(path)."
        ) from error


def refuse_existing(
    paths: Iterable[str | os.PathLike[str]], *, overwrite: bool, how: str = "--overwrite"
) -> None:
    """Refuse outputs that exist already, before any work starts; ``how`` says how to replace them.

    Raises
    ------
    FileError
        Names them and says how to replace them.
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
