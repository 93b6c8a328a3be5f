"""``celldit embed``."""

from __future__ import annotations

from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command


@command()
def embed(
    model: options.ModelFolder,
    data: options.Screen,
    output: options.AnnDataOutput,
    key_added: Annotated[str, typer.Option(metavar="KEY", help="Name in obsm.")] = "X_celldit",
) -> Answer:
    """Write the cells with the model's latent of each, for neighbours and clusters.

    Example: celldit embed model screen.h5ad -o embedded.h5ad
    """
    from celldit.io.files import read_h5ad, write_h5ad
    from celldit.model import CellDiT
    from celldit.tl.latent import embed as put

    adata = read_h5ad(data)
    put(adata, CellDiT.load(model), key_added=key_added)
    write_h5ad(output, adata)
    n_cells, n_dims = adata.obsm[key_added].shape
    said = f"{n_cells:,} cells, each with {n_dims} numbers in obsm[{key_added!r}], are in {output}."
    return Answer({"output": str(output), "n_cells": n_cells, "n_dims": n_dims}, [said])
