"""Counts of genes that a query did not measure, drawn from rates that a model knows."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from celldit.data.cells import COUNTS_PER_CELL, Cells
from celldit.errors import InputError, examples

#: A query with fewer of the model's genes says too little of its cells.
LEAST_MEASURED = 0.5
#: Of a cell's counts; what was measured is not scaled up by more.
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Imputed:
    """Genes that were filled in, and their share of each cell's expected counts, shape (N,)."""

    genes: tuple[str, ...]
    share_N: np.ndarray


def check_missing(missing: object) -> None:
    """Refuse what is no way to treat missing genes."""
    if missing not in ("refuse", "impute"):
        raise InputError(f'missing={missing!r} must be "refuse" or "impute".')


def impute(
    cells: Cells,
    genes: Sequence[str],
    rates: Mapping[tuple[str, float | None], np.ndarray],
    seed: int,
    *,
    whole_cells: bool,
) -> tuple[Cells, Imputed]:
    """Fill in genes that were not measured at the rate of control cells of the same context.

    `cells` have those of the model's G `genes` that the query has; `rates` are counts per 10,000 in
    the controls of each context and time, shape (G,). `whole_cells` says whether size factors are
    of whole cells, and not the sum over the genes at hand. A cell's draws belong to the seed and to
    its name.

    InputError if more than half of the genes are missing, or no rates are known. A warning says how
    many genes were filled in, and their share of a cell's counts.
    """
    column_of = {gene: column for column, gene in enumerate(cells.genes)}
    missing = np.array([i for i, gene in enumerate(genes) if gene not in column_of], dtype=np.int64)
    lacking = tuple(genes[i] for i in missing)
    if len(missing) > (1 - LEAST_MEASURED) * len(genes):
        raise InputError(
            f"{len(missing)} of the model's {len(genes)} genes are not in the data "
            f"({examples(lacking)}), more than can be filled in; give data with at least half of "
            "them, or name them as the model does."
        )
    if not rates:
        raise InputError(
            "This model was saved without the rates of control cells, from which missing genes are "
            "filled in; train it again."
        )
    by_context: dict[str, list[np.ndarray]] = {}
    for (context, _), rate_G in rates.items():
        by_context.setdefault(context, []).append(rate_G)
    everywhere = list(rates.values())
    rate_of = {
        context: np.asarray(by_context.get(context, everywhere), dtype=np.float64).mean(axis=0)
        for context in set(cells.contexts)
    }
    share_N = np.array([_share(rate_of[c], missing) for c in cells.contexts])
    # Genes at hand that controls hardly express do not tell how large a cell is.
    measured_N = (1 - share_N).clip(min=LEAST_SHARE)
    sizes = cells.size_factors if whole_cells else cells.size_factors / measured_N
    drawn = np.zeros((cells.n_cells, len(missing)), dtype=np.float32)
    for row, (name, context) in enumerate(zip(cells.names, cells.contexts, strict=True)):
        expected = rate_of[context][missing] * float(sizes[row]) / COUNTS_PER_CELL
        drawn[row] = _generator(str(name), seed).poisson(expected)
    columns = np.array([column_of.get(gene, -1) for gene in genes])
    place = np.concatenate([missing, np.flatnonzero(columns >= 0)])
    known = cells.counts[:, columns[columns >= 0]]
    both = sparse.hstack([sparse.csr_matrix(drawn), known], format="csr")
    counts = sparse.csr_matrix(both[:, np.argsort(place)])
    warnings.warn(
        f"{len(missing)} of {len(genes)} genes were not measured ({examples(lacking)}) and are "
        f"filled in at the rates of the model's control cells, {share_N.mean():.1%} of a cell's "
        "counts; what is predicted of them says nothing of these cells.",
        UserWarning,
        stacklevel=4,
    )
    filled = replace(
        cells, counts=counts, genes=tuple(genes), size_factors=sizes.astype(np.float32)
    )
    return filled, Imputed(lacking, share_N.astype(np.float32))


def _share(rate_G: np.ndarray, missing: np.ndarray) -> float:
    return float(rate_G[missing].sum() / max(float(rate_G.sum()), 1e-12))


def _generator(name: str, seed: int) -> np.random.Generator:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])
