"""The model's latent: where cells are in it, and what each dimension does to each gene."""

from __future__ import annotations

import anndata as ad
import numpy as np

from celldit.arguments import check_key
from celldit.data.checks import check_anndata
from celldit.errors import InputError, examples
from celldit.model import CellDiT
from celldit.tl.cells import read_cells, store, trained_parts, writable


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
    target = writable(adata, key_added, copy)
    autoencoder = trained.autoencoder
    target.obsm[key_added] = autoencoder.at_own_size(autoencoder.encode(read_cells(adata, trained)))
    return target if copy else None


def gene_loadings(
    adata: ad.AnnData, model: CellDiT, *, key_added: str = "celldit_loadings", copy: bool = False
) -> ad.AnnData | None:
    """Write the decoder's loading of every gene on every latent dimension.

    The decoder is log-linear in the latent, plus a small residual network: the loading is the
    change of the gene's log expectation when the dimension rises by one, the residual left out.
    Dimensions are those of ``obsm["X_celldit"]``, in units of log expression.

    Parameters
    ----------
    adata
        Any AnnData with the model's G genes, in any order, others among them allowed.
    model
        A trained model.
    key_added
        Key in ``varm`` and ``uns``.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    AnnData or None
        With ``copy=True`` the changed copy. Written: ``varm[key_added]``, float32, shape (n_vars,
        K·D), its columns in the order of ``obsm["X_celldit"]``; NaN for genes that the model does
        not know. ``uns[key_added]["names"]``, the names ``token.dimension`` of the columns.

    Raises
    ------
    InputError
        If gene names occur twice, or genes of the model are missing.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> cd.tl.gene_loadings(adata, model)
    >>> adata.varm["celldit_loadings"].shape == (adata.n_vars, 48)
    True
    """
    trained = trained_parts(model)
    check_anndata(adata, "adata")
    check_key(key_added)
    if not adata.var_names.is_unique:
        raise InputError("Gene names occur more than once; call adata.var_names_make_unique().")
    table = trained.autoencoder.gene_loadings()
    missing = [gene for gene in table.index if gene not in adata.var_names]
    if missing:
        raise InputError(
            f"{len(missing)} of the model's {len(table)} genes are not in adata "
            f"({examples(missing)}); pass an AnnData with the genes that the model was trained on."
        )
    target = writable(adata, key_added, copy)
    loadings = table.reindex(target.var_names.astype(str)).to_numpy(dtype=np.float32)
    target.varm[key_added] = loadings
    store(target, key_added, {"names": np.array(table.columns, dtype=object)})
    return target if copy else None
