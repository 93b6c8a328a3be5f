"""A screen in a file, as the options say what its columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


def read_screen(data: Path, given: Mapping[str, Any]) -> ad.AnnData:
    """Read a file into memory; what is given comes before what its own setup says.

    Parameters
    ----------
    data
        An ``.h5ad`` file.
    given
        Arguments of ``setup_anndata``; those that are empty are not given.
    """
    from celldit.data.fields import Fields, is_set_up, setup_anndata
    from celldit.io.files import read_h5ad

    adata = read_h5ad(data)
    chosen = {name: value for name, value in given.items() if value}
    if chosen:
        before = Fields.from_anndata(adata).arguments() if is_set_up(adata) else {}
        setup_anndata(adata, **{**before, **chosen})
    return adata


def write_table(table: pd.DataFrame, output: Path) -> None:
    """Write a table as ``.csv``, whole or not at all."""
    from celldit.io.files import whole_file

    with whole_file(output) as path:
        table.to_csv(path, index=False)


def write_figure(figure: Path | None, draw: Any) -> None:
    """Draw into a file without a window, where one is asked for."""
    if figure is None:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    draw(save=figure, show=False)
