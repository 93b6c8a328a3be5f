"""What commands read and write: models, screens, tables, figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from celldit.arguments import check_plain
from celldit.errors import FileError
from celldit.io.files import read_h5ad
from celldit.io.replacing import made_whole

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


def read_screen(
    data: Path, columns: Mapping[str, Any], assumed: Mapping[str, Any] | None = None
) -> ad.AnnData:
    """Read an ``.h5ad`` file into memory, and say what its columns mean.

    Arguments of ``setup_anndata`` that were given, `columns`, come first; `assumed` are those for a
    file that was not set up, such as those of a model or a prediction.
    """
    adata = read_h5ad(data)
    set_up(adata, columns, assumed)
    return adata


def set_up(
    adata: ad.AnnData, columns: Mapping[str, Any], assumed: Mapping[str, Any] | None = None
) -> None:
    """Say what the columns mean; see :func:`read_screen`."""
    from celldit.data.fields import Fields, is_set_up, setup_anndata

    known = Fields.from_anndata(adata).arguments() if is_set_up(adata) else assumed or {}
    if columns or known is assumed:
        setup_anndata(adata, **{**known, **columns})


def read_lines(path: Path) -> list[str]:
    """The lines of a plain file that are not blank; FileError if it cannot be read."""
    check_plain(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read ({error}).") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def claim(output: Path, *, overwrite: bool) -> None:
    """See that cells can be written to a path, before any is made; its folders are made.

    InputError if the path has another ending than ``.h5ad`` or ``.zarr``; FileError if it exists
    already, or cannot be written.
    """
    from celldit.io.stream import check_out

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"Cannot make the folder {output.parent}: {error.strerror}.") from error
    check_out(output, overwrite)


def write_table(table: pd.DataFrame, output: Path | None) -> None:
    """Write a table as ``.csv``, whole or not at all, where one is asked for."""
    if output is not None:
        with made_whole(output) as path:
            table.to_csv(path, index=False)


def write_figure(figure: Path | None, draw: Any) -> None:
    """Draw into a file without a window, whole or not at all, where one is asked for."""
    if figure is None:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    with made_whole(figure) as path:
        draw(save=path, show=False)


def named_query(text: str) -> tuple[str, str]:
    """Name and query of ``NAME=QUERY``; a query alone is its own name."""
    found = re.fullmatch(r"\s*([^='\"!<>]*[^='\"!<>\s])\s*=(?!=)(.+)", text, re.DOTALL)
    return (found[1], found[2].strip()) if found else (text.strip(), text.strip())


def named_pairs(
    texts: Sequence[str] | None, refusal: str, *, empty: bool = False
) -> dict[str, str]:
    """Values by name, of texts ``NAME=VALUE``; a usage error, with the text in `refusal`, if not.

    A name must not be empty, and a value only where `empty` says so.
    """
    pairs = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not (name and sign and (value or empty)):
            raise typer.BadParameter(refusal.format(repr(text)))
        pairs[name] = value
    return pairs
