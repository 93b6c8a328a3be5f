"""Where knowledge of genes comes from, as matrices with a row for each gene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from celldit.data.cells import Cells
from celldit.data.symbols import human_symbols, mouse_symbol
from celldit.datasets import gene_set_file
from celldit.errors import InputError, UnknownNameError
from celldit.random import short_seed
from celldit.tokenizers.gmt import check_sets, read_gmt

Source: TypeAlias = str | Path | pd.DataFrame | Mapping[str, Sequence[str]]
"""What :func:`celldit.pp.gene_features` takes as one source."""

BUNDLED = {"reactome": "reactome", "hallmark": "hallmark", "go": "go", "go_bp": "go", "gobp": "go"}
MIN_SET, MAX_SET = 3, 500
MAX_CONTROLS = 5000
# Columns of what is decomposed, unless told otherwise.
N_COMPONENTS = 64
# A gene of n equal sets is n to this power as long as a gene of one. At 1 the sets' effects add
# up, and genes that are studied much are expected to do most; at 0 all genes are expected to do
# equally much.
LENGTH_POWER = 0.5


def describe(
    source: Source,
    cells: Cells | None,
    n_components: int | None,
    seed: int,
    spelling: Sequence[str] | None = None,
) -> pd.DataFrame:
    """What one source of :func:`celldit.pp.gene_features` knows of genes: one row per gene.

    Of `cells`, None where there are none in memory, the controls are what ``"expression"`` looks
    at. Without `n_components` gene sets are kept whole. The genes of sets take the case of
    `spelling`.
    """
    if isinstance(source, pd.DataFrame):
        names, matrix = given(source)
    elif isinstance(source, str) and source == "expression":
        if cells is None:
            raise InputError('source="expression" looks at control cells, which must be in memory.')
        names, matrix = expression(cells, seed)
    else:
        sets = gene_sets(source)
        names, columns, matrix = membership(sets if spelling is None else respell(sets, spelling))
        if n_components is None:
            return pd.DataFrame.sparse.from_spmatrix(matrix, index=names, columns=columns)
    return reduce(names, matrix, n_components or N_COMPONENTS, seed)


def name_of(source: Source, taken: Sequence[str]) -> str:
    """A short name for a source that no other has."""
    name = "table" if isinstance(source, pd.DataFrame) else "gene_sets"
    if isinstance(source, (str, Path)):
        name = Path(source).name.split(".")[0] or "gene_sets"
    if name not in taken:
        return name
    return next(f"{name}_{i}" for i in range(2, len(taken) + 3) if f"{name}_{i}" not in taken)


def gene_sets(source: Any) -> dict[str, tuple[str, ...]]:
    if isinstance(source, Mapping):
        return check_sets(source)
    if isinstance(source, str) and source.lower() in BUNDLED:
        return read_gmt(gene_set_file(BUNDLED[source.lower()]))
    is_path = isinstance(source, Path) or (
        isinstance(source, str) and (source.endswith((".gmt", ".gmt.gz")) or "/" in source)
    )
    if is_path:
        return read_gmt(source)
    known = ["reactome", "go", "hallmark", "expression", "a GMT file", "a DataFrame"]
    if isinstance(source, str):
        raise UnknownNameError.among("source of gene features", source, known)
    raise InputError(
        f"source must be one of {', '.join(known)}, or a mapping from set names to genes, not "
        f"{type(source).__name__}."
    )


def respell(
    sets: Mapping[str, Sequence[str]], spelling: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The same sets with human genes named as by others, and as in mouse where there is none."""
    known = dict(zip(human_symbols(spelling), spelling, strict=True))
    return {
        name: tuple(dict.fromkeys(known.get(g.upper(), mouse_symbol(g)) for g in genes))
        for name, genes in sets.items()
    }


def membership(sets: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str], sparse.csr_matrix]:
    """Genes, sets, and the weighted matrix of which gene is in which.

    All genes of a set together weigh as much in it as those of any other, so that narrow sets say
    more of a gene; rows are then drawn towards unit length (:data:`LENGTH_POWER`).
    """
    chosen = {name: genes for name, genes in sets.items() if MIN_SET <= len(genes) <= MAX_SET}
    kept = list(chosen.values())
    names = sorted({gene for genes in kept for gene in genes})
    if not names:
        raise InputError(f"No gene set lists between {MIN_SET} and {MAX_SET} genes; give others.")
    row_of = {gene: i for i, gene in enumerate(names)}
    rows = np.array([row_of[gene] for genes in kept for gene in genes])
    sizes = np.array([len(genes) for genes in kept])
    columns = np.repeat(np.arange(len(kept)), sizes)
    weights = np.repeat(1 / np.sqrt(sizes), sizes)
    matrix = sparse.csr_matrix((weights, (rows, columns)), shape=(len(names), len(kept)))
    lengths = np.sqrt(np.asarray(matrix.power(2).sum(axis=1)).ravel())
    drawn = sparse.csr_matrix(sparse.diags(lengths ** (LENGTH_POWER - 1)) @ matrix)
    return names, list(chosen), drawn


def expression(cells: Cells, seed: int) -> tuple[list[str], np.ndarray]:
    """Standardised log expression of the controls, genes x cells."""
    controls = cells.take(cells.is_control)
    if controls.n_cells < 10:
        raise InputError(
            f"adata has {controls.n_cells} control cells, too few for co-expression; use another "
            'source, such as "reactome".'
        )
    if controls.n_cells > MAX_CONTROLS:
        rows = np.random.default_rng(seed).choice(controls.n_cells, MAX_CONTROLS, replace=False)
        controls = controls.take(np.sort(rows))
    log_NG = controls.log_normalized().toarray().astype(np.float64)
    log_NG -= log_NG.mean(axis=0)
    spread = log_NG.std(axis=0)
    # A gene that is never seen in controls has no co-expression; a row of zeros would claim one.
    seen = spread > 0
    names = [gene for gene, keep in zip(cells.genes, seen, strict=True) if keep]
    scaled = log_NG[:, seen] / spread[seen] / np.sqrt(controls.n_cells)
    return names, np.ascontiguousarray(scaled.T)


def given(table: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    names = [str(name) for name in table.index]
    if len(set(names)) < len(names):
        raise InputError("The table of source= names a gene twice; drop the duplicates.")
    try:
        matrix = table.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("The table of source= holds values that are not numbers.") from error
    if matrix.size == 0 or not np.isfinite(matrix).all():
        raise InputError("The table of source= is empty or has missing values; fill or drop rows.")
    matrix = matrix - matrix.mean(axis=0)
    spread = matrix.std(axis=0)
    return names, matrix[:, spread > 0] / spread[spread > 0]


def reduce(
    names: Sequence[str], matrix: np.ndarray | sparse.csr_matrix, n_components: int, seed: int
) -> pd.DataFrame:
    """Leading singular vectors times singular values, of a fixed sign."""
    n = min(n_components, *matrix.shape)
    if n < 1:
        raise InputError("The source tells no gene from another; give another source.")
    left, lengths, _ = randomized_svd(matrix, n, n_iter=7, random_state=short_seed(seed))
    kept = lengths > 1e-9 * max(lengths.max(), 1e-300)
    scores = (left * lengths)[:, kept]
    columns = [f"component_{i + 1}" for i in range(scores.shape[1])]
    return pd.DataFrame(scores, index=pd.Index(list(names), dtype=object), columns=columns)
