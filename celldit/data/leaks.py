"""Finding test cells among the training cells, and in what was fitted on them.

An AnnData does not say on which rows its principal components, its choice of genes or its size
factors were computed. But each leaves a mark that only the rows it was computed on show, so the
mark is looked for in the training rows, and in training and test rows together.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
from scipy import sparse

from celldit.data.checks import check_anndata
from celldit.data.counts import read_counts
from celldit.data.disk.pointers import check_matrices
from celldit.data.fields import Fields
from celldit.data.genes import match_genes
from celldit.data.labels.columns import read_labels, read_size_factors
from celldit.errors import InputError, examples

# Scores in float32 are orthogonal to about 1e-4; a test set of 1% disturbs that by 1e-2.
ORTHOGONAL = 1e-3
# Means in float32, of values that one side alone moves by percents.
SAME_MEANS = 1e-4
UNIT = 1e-6
# e^30 counts are more than a cell has: values above are no logarithms.
LARGEST_LOG = 30.0
#: Columns that ``scanpy.pp.highly_variable_genes`` writes.
CHOICE = "highly_variable"
GENE_MEANS = "means"


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
    check_anndata(test, "test")
    train, test = (cells.to_memory() if cells.isbacked else cells for cells in (train, test))
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


def check_fitted_on_train(train: ad.AnnData, test: ad.AnnData, fields: Fields) -> None:
    """Refuse what was fitted on training and test cells together.

    - ``obsm["X_pca"]``, and every other key that begins so: the scores of principal components are
      orthogonal to each other over the rows they were fitted on, and over no others.
    - ``var["highly_variable"]``: ``var["means"]`` beside it is the mean over the rows it was chosen
      on, of one of the matrices there or of what scanpy makes of them.
    - Size factors scaled to a mean or median of 1: over the rows they were scaled on.

    InputError if training and test cells together show the mark, and the training cells alone do
    not. A warning if neither does: then it was fitted on other cells still, or by other means, and
    nothing can be said.
    """
    for name, cells in {"train": train, "test": test}.items():
        check_matrices(cells, name)
    for key in train.obsm:
        if str(key).startswith("X_pca"):
            _judge(
                f"obsm[{key!r}]",
                "the principal components were fitted",
                _orthogonal(np.asarray(train.obsm[key], dtype=np.float64)),
                partial(_whole_orthogonal, train, test, key),
            )
    if CHOICE in train.var and np.asarray(train.var[CHOICE], dtype=bool).any():
        _judge(
            f"var[{CHOICE!r}]",
            "highly variable genes were chosen",
            _has_means(train, train, fields),
            lambda: _has_means(train, ad.concat([train, test[:, train.var_names]]), fields),
        )
    if fields.size_factor_key is not None and fields.size_factor_key in test.obs:
        ours = read_size_factors(train, fields.size_factor_key)
        both = np.concatenate([ours, read_size_factors(test, fields.size_factor_key)])
        # Library sizes are of each cell alone, so size factors without the mark are no worry.
        if not _unit(ours) and _unit(both):
            _refuse(f"obs[{fields.size_factor_key!r}]", "size factors were scaled")


def _judge(where: str, what: str, on_train: bool, on_both: Callable[[], bool]) -> None:
    if on_train:
        return
    if on_both():
        _refuse(where, what)
    warnings.warn(
        f"{where} does not fit the training cells: {what} on other cells, or in a way that cannot "
        "be recognised; make sure that no test cell was among them, or delete it.",
        UserWarning,
        stacklevel=5,
    )


def _refuse(where: str, what: str) -> None:
    raise InputError(
        f"{where} knows the test cells: {what} on training and test cells together; split first, "
        "then compute it on the training cells alone, or delete it if nothing depends on it."
    )


def _orthogonal(scores_ND: np.ndarray) -> bool:
    """Whether the largest cosine between two columns is next to nothing."""
    lengths_D = np.linalg.norm(scores_ND, axis=0)
    unit_ND = scores_ND[:, lengths_D > 0] / lengths_D[lengths_D > 0]
    gram_DD = np.abs(unit_ND.T @ unit_ND)
    np.fill_diagonal(gram_DD, 0.0)
    return bool(gram_DD.max(initial=0.0) < ORTHOGONAL)


def _whole_orthogonal(train: ad.AnnData, test: ad.AnnData, key: str) -> bool:
    if key not in test.obsm:
        return False
    ours, theirs = (np.asarray(cells.obsm[key], dtype=np.float64) for cells in (train, test))
    return ours.shape[1] == theirs.shape[1] and _orthogonal(np.concatenate([ours, theirs]))


def _has_means(train: ad.AnnData, rows: ad.AnnData, fields: Fields) -> bool:
    """Whether the means that were noted with the choice are those of the rows."""
    if GENE_MEANS not in train.var:
        return False
    noted_G = train.var[GENE_MEANS].to_numpy(dtype=np.float64)
    return any(
        np.allclose(mean_G, noted_G, rtol=SAME_MEANS, atol=SAME_MEANS * np.abs(noted_G).mean())
        for mean_G in _means(rows, fields)
    )


def _means(adata: ad.AnnData, fields: Fields) -> Iterator[np.ndarray]:
    """Gene means as scanpy's flavours note them, of each matrix and of what it normalises to."""
    key = fields.size_factor_key
    sizes_N = None if key is None or key not in adata.obs else read_size_factors(adata, key)
    for matrix in (adata.X, *adata.layers.values()):
        if matrix is None:
            continue
        values_NG = sparse.csr_matrix(matrix, dtype=np.float64)
        yield _mean(values_NG)  # seurat_v3, on counts
        if values_NG.nnz and values_NG.data.max() < LARGEST_LOG:
            yield from _of_rates(values_NG.expm1())
        for totals_N in (np.asarray(values_NG.sum(axis=1)).ravel(), sizes_N):
            if totals_N is None:
                continue
            # Cells without counts have no part in scanpy's median.
            for target in (1e4, 1e6, float(np.median(totals_N[totals_N > 0]))):
                scale_N = np.divide(
                    target, totals_N, out=np.zeros_like(totals_N), where=totals_N > 0
                )
                yield from _of_rates(sparse.csr_matrix(sparse.diags(scale_N) @ values_NG))


def _of_rates(rates_NG: Any) -> Iterator[np.ndarray]:
    mean_G = _mean(rates_NG)
    yield np.log1p(mean_G)  # seurat
    yield mean_G  # cell_ranger


def _mean(values_NG: Any) -> np.ndarray:
    return np.asarray(values_NG.mean(axis=0)).ravel()


def _unit(factors_N: np.ndarray) -> bool:
    return bool(abs(factors_N.mean() - 1) < UNIT or abs(np.median(factors_N) - 1) < UNIT)
