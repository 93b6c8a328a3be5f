"""Put cells into the model's latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad

from celldit.tl.cells import read_cells, trained_parts, writable

if TYPE_CHECKING:
    from celldit.model import CellDiT

__all__ = ["embed"]


def embed(
    adata: ad.AnnData, model: CellDiT, *, key_added: str = "X_celldit", copy: bool = False
) -> ad.AnnData | None:
    """Write the model's latent of every cell, for ``sc.pp.neighbors(adata, use_rep="X_celldit")``.

    Parameters
    ----------
    adata
        Measured cells with the model's genes and columns, or cells that celldit predicted.
    model
        A trained model.
    key_added
        Key in ``obsm``.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    AnnData or None
        With ``copy=True`` the changed copy. Written: ``obsm[key_added]``, float32, shape (N, K·D).

    Raises
    ------
    InputError, UnknownNameError
        If genes are missing, or counts or columns cannot be used.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> cd.tl.embed(adata, model)
    >>> len(adata.obsm["X_celldit"]) == adata.n_obs
    True
    """
    trained = trained_parts(model)
    target = writable(adata, copy)
    autoencoder = trained.autoencoder
    target.obsm[key_added] = autoencoder.at_own_size(autoencoder.encode(read_cells(adata, trained)))
    return target if copy else None
