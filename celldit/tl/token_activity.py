"""Activity of the model's gene sets or modules in each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np

from celldit.errors import InputError
from celldit.tl.cells import read_cells, store, trained_parts, writable

if TYPE_CHECKING:
    from celldit.model import CellDiT

__all__ = ["token_activity"]

BATCH = 2048


def token_activity(
    adata: ad.AnnData, model: CellDiT, *, key_added: str = "token_activity", copy: bool = False
) -> ad.AnnData | None:
    """Write the first eigengene of each gene set or module that the model was fitted with.

    An eigengene is the first principal component of the genes of a set, fitted on the training
    cells, signed so that a high value means that the set is expressed (Langfelder & Horvath 2007,
    BMC Systems Biology 1:54; Tomfohr, Lu & Kepler 2005, BMC Bioinformatics 6:225).

    Parameters
    ----------
    adata
        N measured or predicted cells with the model's genes.
    model
        A trained model with the tokenizer ``"gene_sets"`` or ``"modules"``.
    key_added
        Key in ``obsm`` and ``uns``.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    AnnData or None
        With ``copy=True`` the changed copy. Written: ``obsm[key_added]``, float32, shape (N, T),
        and ``uns[key_added]["names"]``, the names of the T sets.

    Raises
    ------
    InputError
        If the model's tokens are single genes, or genes are missing.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> cd.tl.token_activity(adata, model)
    >>> "HALLMARK_INTERFERON_GAMMA_RESPONSE" in adata.uns["token_activity"]["names"]
    True
    """
    trained = trained_parts(model)
    tokenizer = trained.autoencoder.tokenizer
    if not (tokenizer.same_for_every_cell and tokenizer.name in ("gene_sets", "modules")):
        raise InputError(
            f"This model has the tokenizer {tokenizer.name!r}, whose tokens are single genes; "
            'token_activity needs one with tokenizer="gene_sets" or "modules".'
        )
    target = writable(adata, copy)
    cells = read_cells(adata, trained)
    activity_NT = np.zeros((cells.n_cells, tokenizer.n_identities), dtype=np.float32)
    for start in range(0, cells.n_cells, BATCH):
        rows = slice(start, start + BATCH)
        activity_NT[rows] = tokenizer(cells.take(rows)).values[:, :, 0].numpy()
    target.obsm[key_added] = activity_NT
    store(target, key_added, {"names": np.array(tokenizer.token_names, dtype=object)})
    return target if copy else None
