"""Opening ``.h5ad`` files and ``.zarr`` folders; those damaged or with links are refused."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem

from celldit.arguments import check_plain
from celldit.data.disk.pointers import check_matrices
from celldit.data.disk.text_lengths import MOST_SQUEEZED, check_lengths
from celldit.errors import CellditError, FileError, InputError, reason_of


@contextmanager
def reading(
    path: Path,
    remedy: str = "write it with fewer cells or genes, or in smaller shards",
    kind: str = "an AnnData",
) -> Iterator[None]:
    """Say in one sentence that a file cannot be read, whatever h5py, zarr or anndata say.

    FileError in place of any error that is not celldit's own; `remedy` is what to do about memory,
    and `kind` what the file should hold.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=ad.OldFormatWarning)
            yield
    except CellditError:
        raise
    except MemoryError as error:
        raise FileError(f"{path} needs more memory than there is; {remedy}.") from error
    except Exception as error:  # a damaged file ends in errors of h5py, zarr, numpy and pandas
        raise FileError(
            f"{path} cannot be read as {kind} ({reason_of(error)}); write it again with anndata, "
            "or copy it again."
        ) from error


def read_whole(path: Path, remedy: str, kind: str = "an AnnData") -> ad.AnnData:
    """Bring an ``.h5ad`` file into memory, all that points anywhere looked at; see :func:`reading`.

    FileError if it cannot be read, points out of itself, or a matrix in it is damaged.
    """
    with reading(path, remedy, kind):
        # Names that repeat are refused later where they matter, in celldit's own words.
        warnings.filterwarnings("ignore", message=".*names are not unique.*")
        check_no_links(path, kind)
        adata = ad.read_h5ad(path)
    try:
        check_matrices(adata, "adata")
    except InputError as error:
        raise FileError(f"{path}: {error}") from error
    return adata


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group."""
    return any((path / name).exists() for name in (".zgroup", "zarr.json"))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an ``.h5ad`` file or a ``.zarr`` folder for reading, and close it again.

    A store may have any number of shards, and a process has about a thousand descriptors. To open a
    file takes less than a millisecond.

    FileError if there is none, or it cannot be read, within as well.
    """
    check_there(path)
    with reading(path), file_at(path) as root:
        yield root


def file_at(path: Path) -> AbstractContextManager[Any]:
    """The same, with errors of h5py and zarr as they are."""
    if path.is_dir():
        return nullcontext(zarr.open_group(path, mode="r"))
    check_plain(path)
    file: AbstractContextManager[Any] = h5py.File(path, "r")
    return file


def check_there(path: Path) -> None:
    """Refuse a path that leads nowhere."""
    if not path.exists():
        raise FileError(f"There is no {path}; check the path.")


def check_no_links(path: Path, kind: str = "an AnnData") -> None:
    """Refuse a file or folder that a stranger may have made to point at other files.

    FileError if it holds external links, external or virtual data, links out of the folder, or
    pipes; `kind` is what it should hold.
    """
    check_there(path)
    found: list[str] = []
    with reading(path, kind=kind):
        if path.is_dir():
            inside = path.resolve()
            for folder, folders, files in os.walk(path):
                for name in (*folders, *files):
                    one = Path(folder) / name
                    if one.is_symlink() and not one.resolve().is_relative_to(inside):
                        found.append(str(one.relative_to(path)))
                    elif not one.is_dir():
                        check_plain(one)  # a pipe would be waited for
        else:
            check_plain(path)
            with h5py.File(path, "r") as file, path.open("rb") as raw:
                links: list[tuple[str, Any]] = []
                file.visititems_links(lambda name, link: links.append((name, link)))
                found += [name for name, link in links if isinstance(link, h5py.ExternalLink)]
                inner = [name for name, link in links if isinstance(link, h5py.HardLink)]
                for name in ("/", *inner):
                    found += [name] if _points_out(file[name]) else []
                    check_lengths(file[name], raw, path.stat().st_size)
    if found:
        raise FileError(
            f"{path} points out of itself (at {found[0]!r}), where a file from elsewhere may name "
            "any other; copy what it points at into it, and write it again with anndata."
        )


def _points_out(item: Any) -> bool:
    """Whether an array lies in other files; one larger than what is stored is refused."""
    if not isinstance(item, h5py.Dataset):
        return False
    stored = item.id.get_storage_size()
    n_bytes = (item.size or 0) * item.id.get_type().get_size()
    if stored and n_bytes > stored * (1 if item.chunks is None else MOST_SQUEEZED):
        # Memory for all of it would be taken before h5py finds out.
        raise ValueError(f"{item.name} has {stored} bytes for an array of {n_bytes}")
    return bool(item.external or item.is_virtual)


def refuse_missing_chunks(array: Any, name: str, path: Path) -> None:
    """Refuse an array of which a part was never written or is gone: it would be read as zeros.

    None of its parts may be all zeros; `name` and `path` say what it is.
    """
    n_missing = missing_chunks(array)
    if n_missing:
        raise FileError(
            f"{name} of {path} lacks {n_missing} of its parts on disk, which would be read as "
            "zeros; copy or write it again."
        )


def missing_chunks(array: Any) -> int:
    """How many chunks of an array are not on disk."""
    if not array.size:
        return 0
    if isinstance(array, h5py.Dataset):
        if array.chunks is None:
            return int(array.id.get_storage_size() == 0)
        wanted = int(np.prod([-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]))
        return max(0, wanted - int(array.id.get_num_chunks()))
    return max(0, int(array.nchunks) - int(array.nchunks_initialized))


def table_of(root: Any, name: str, columns: Sequence[str], path: Path) -> pd.DataFrame:
    """Some columns of ``obs`` or ``var``, all of which must be there, as anndata reads them.

    The index holds the names, as text; `root` is what :func:`opened` gave.
    """
    table = root[name]
    version = "" if not hasattr(table, "keys") else str(table.attrs.get("encoding-version", ""))
    if isinstance(table, h5py.Dataset) or (isinstance(root, h5py.File) and not version):
        # Records, with categories in uns: only anndata's own reader brings them together.
        whole = _by_anndata(path, name)
    elif version == "0.1.0":
        whole = read_elem(table)
    else:
        index = index_of(table, path)
        frame = {column: _column(table[column], len(index), column, path) for column in columns}
        return pd.DataFrame(frame, index=pd.Index(index, dtype=object))
    whole.index = pd.Index([str(n) for n in whole.index], dtype=object)
    return whole[list(columns)]


def _by_anndata(path: Path, name: str) -> pd.DataFrame:
    backed = ad.read_h5ad(path, backed="r")
    try:
        found: pd.DataFrame = getattr(backed, name)
        return found
    finally:
        backed.file.close()


def column_names(root: Any, name: str, path: Path) -> list[str]:
    """Names of the columns of ``obs`` or ``var``."""
    table = root[name]
    if hasattr(table, "keys") and "column-order" in table.attrs:
        return [str(column) for column in table.attrs["column-order"]]
    return [str(column) for column in _by_anndata(path, name).columns]


def index_of(table: Any, path: Path) -> list[str]:
    """The names of cells or genes in a table on disk."""
    names = table[table.attrs["_index"]]
    if hasattr(names, "nchunks"):
        refuse_missing_chunks(names, "an index", path)
    return [str(name) for name in read_elem(names)]


def _column(stored: Any, length: int, name: str, path: Path) -> Any:
    values = read_elem(stored)
    if getattr(values, "ndim", 0) != 1 or len(values) != length:
        raise FileError(
            f"The column {name!r} of {path} is no list of {length} values; write it again."
        )
    if not hasattr(stored, "keys"):
        texts = stored
    else:
        texts = stored.get("categories")
        # One category is written as zeros, which zarr may leave out; several are not.
        if "codes" in stored and len(values.categories) > 1 and _is_empty(stored["codes"]):
            raise FileError(
                f"The column {name!r} of {path} lacks its codes on disk, so that all cells would "
                "have one value; copy or write it again."
            )
    if texts is not None and texts.dtype.kind not in "biufc":
        refuse_missing_chunks(texts, f"The column {name!r}", path)
    return values


def _is_empty(array: Any) -> bool:
    """Whether nothing of an array is on disk."""
    if isinstance(array, h5py.Dataset):
        return array.size > 0 and array.id.get_storage_size() == 0
    return array.size > 0 and int(array.nchunks_initialized) == 0
