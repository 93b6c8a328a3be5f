"""Where a command writes."""

from __future__ import annotations

from pathlib import Path

from celldit.errors import FileError

__all__ = ["claim"]


def claim(output: Path, *, overwrite: bool) -> None:
    """See that cells can be written to a path, before any is made; its folders are made.

    Raises
    ------
    InputError
        If the path has another ending than ``.h5ad`` or ``.zarr``.
    FileError
        If it exists already, or cannot be written.
    """
    from celldit.io.stream import check_out

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"Cannot make the folder {output.parent}: {error.strerror}.") from error
    check_out(output, overwrite)
