"""Where a command writes."""

from __future__ import annotations

from pathlib import Path

from celldit.errors import FileError

__all__ = ["make_room"]


def make_room(output: Path) -> None:
    """Make the folders that a file is to stand in.

    Raises
    ------
    FileError
        If they cannot be made.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"Cannot make the folder {output.parent}: {error.strerror}.") from error
