"""Finding test cells among the training cells, and in what was fitted on them."""

from __future__ import annotations

import hashlib

import anndata as ad
import numpy as np

from celldit.data.counts import read_counts
from celldit.data.fields import Fields
from celldit.data.fitted import check_fitted_on_train
from celldit.data.genes import match_genes
from celldit.data.labels.columns import read_labels, read_size_factors
from celldit.errors import InputError, examples


def check_no_leak(train: ad.AnnData, test: ad.AnnData) -> None:
    """Verify that no test cell is among the training cells, or in what was fitted on them.

    Looks for cells on both sides, under their own names or others; and for principal components in
    ``obsm["X_pca"]``, highly variable genes in ``var``, and size factors scaled to a mean or median
    of 1 that were computed on both sides together. What was computed elsewhere and left no trace in
    the AnnData cannot be found.

    Parameters
    ----------
    train
        Training cells, set up with ``setup_anndata``.
    test
        Test cells, with the same columns and at least the same genes.

    Raises
    ------
    InputError
        If cell names are shared, or a perturbed cell of ``test`` has the counts (and the library
        size, where it is known) of a perturbed cell of ``train``. Names some of them. If something
        that ``train`` carries was fitted on the test cells, too. Names it.
    UnknownNameError
        If ``test`` lacks a column or layer that ``train`` was set up with.

    Warns
    -----
    UserWarning
        If components or genes fit neither the training cells nor both sides together, so that
        nothing can be said about them.
    """
    fields = Fields.from_anndata(train)
    shared = train.obs_names.intersection(test.obs_names)
    if len(shared):
        raise InputError(
            f"{len(shared)} cells are in both training and test data ({examples(shared)}); split "
            "again, or call adata.obs_names_make_unique() if they are different cells."
        )
    seen = _fingerprints(train, train, fields)
    copies = [name for key, name in _fingerprints(test, train, fields).items() if key in seen]
    if copies:
        raise InputError(
            f"{len(copies)} perturbed test cells have exactly the counts of a perturbed training "
            f"cell ({examples(copies)}); they are copies under another name, so drop them."
        )
    check_fitted_on_train(train, test, fields)


def _fingerprints(adata: ad.AnnData, reference: ad.AnnData, fields: Fields) -> dict[bytes, str]:
    """Digest of the counts of every perturbed cell, with the cell's name."""
    rows = np.arange(adata.n_obs)
    if fields.perturbation_key is not None:
        rows = np.flatnonzero(read_labels(adata, fields)[0] != fields.control)
    columns = match_genes(adata.var_names, reference.var_names)
    counts = read_counts(adata, fields.counts_layer, columns)[rows]
    counts.sort_indices()
    sizes = np.zeros(len(rows))
    if fields.size_factor_key is not None:
        # In a small panel, different cells can agree by chance; hardly in library size as well.
        sizes = read_size_factors(adata, fields.size_factor_key)[rows]
    names = adata.obs_names.astype(str)[rows]
    found: dict[bytes, str] = {}
    for row, name in enumerate(names):
        span = slice(counts.indptr[row], counts.indptr[row + 1])
        digest = hashlib.blake2b(counts.indices[span].tobytes(), digest_size=16)
        digest.update(counts.data[span].tobytes())
        digest.update(sizes[row].tobytes())
        found[digest.digest()] = name
    return found
