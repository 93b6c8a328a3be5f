"""Whole numbers that are no counts: rounded CPM, logarithms times a hundred, and the like.

Counts leave marks that nothing else has. Cells differ in their totals at least as much as counting
itself makes them, and a cell with genes that were not seen has genes that were seen once. Rounded
logarithms leave one, too: exponentiated, the cells have nearly one total again, where those of
counts would differ wildly, as the largest count of each cell does. Each block of rows is judged by
itself, so that a part of a file is found out, too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

from celldit.errors import InputError

#: Fewer cells, or cells of fewer genes, tell nothing.
_CELLS, _GENES = 20, 20
#: Poisson counts have a ratio of about 1; below this one in 10^7 blocks of 20 cells.
_SPREAD = 0.33
_ZEROS = 0.3
#: Where many entries are 0 and many are not, some are below this.
_LEAST, _MANY = 5, 1000
#: No logarithm of a rate is larger; a cell whose largest value is less than the second says little.
_LARGEST_LOG, _TELLING_LOG = 25, 3
#: How much exponentiated totals of counts differ at least, of what genes that vary each by itself
#: make; measured: 0.8 and more for counts, 0.2 to 0.65 for rounded logarithms of bundled data.
_INDEPENDENT = 0.7


def check_counted(rows: sparse.csr_matrix, name: str, remedy: Callable[[], str]) -> None:
    """Refuse rows of whole numbers that cannot have been counted.

    Totals are more alike than counting allows, no cell has a gene seen once, or the values are
    logarithms. For the message, `name` says what holds them and `remedy` what to do instead.
    """
    totals_N = np.asarray(rows.sum(axis=1, dtype=np.float64)).ravel()
    totals_N = totals_N[totals_N > 0]
    if len(totals_N) < _CELLS:
        return
    why = None
    mean = float(totals_N.mean())
    spread = float(totals_N.std()) / mean**0.5
    # Cells that were thinned to one total have exactly that.
    equal = float((totals_N == np.median(totals_N)).mean())
    if spread < _SPREAD and equal < 0.5:
        why = (
            f"the totals of its cells are all about {mean:,.0f}, more alike than counting allows, "
            "as in rounded CPM"
        )
    else:
        least = _without_ones(rows)
        if least is not None:
            why = (
                "its cells have genes that were not seen and none that was seen once (the least is "
                f"{least:g}), as in rounded or rescaled data"
            )
        elif equal < 0.5 and _are_logarithms(rows):
            why = (
                f"none is above {rows.data.max():g}, and exponentiated they give cells of nearly "
                "one total, as in rounded logarithms"
            )
    if why is not None:
        raise InputError(
            f"{name} holds whole numbers that are no counts: {why}; celldit needs raw counts. "
            f"{remedy()}"
        )


def _without_ones(rows: sparse.csr_matrix) -> float | None:
    """The smallest value where nearly no cell of many genes has a 1; else None."""
    values, ends = rows.data, rows.indptr
    seen = np.flatnonzero(values)
    n_entries = rows.shape[0] * rows.shape[1]
    if len(seen) >= _MANY and n_entries - len(seen) >= max(_MANY // 10, 0.02 * n_entries):
        least = float(values[seen].min())
        if least >= _LEAST:
            return least
    cell = np.repeat(np.arange(rows.shape[0]), np.diff(ends))[seen]
    n_seen = np.bincount(cell, minlength=rows.shape[0])
    smallest = np.full(rows.shape[0], np.inf)
    np.minimum.at(smallest, cell, values[seen].astype(np.float64))
    telling = (n_seen >= _GENES) & (n_seen <= (1 - _ZEROS) * rows.shape[1])
    if telling.sum() < _CELLS or (smallest[telling] < 2).mean() > 0.1:
        return None
    return float(smallest[telling].min())


def _are_logarithms(rows: sparse.csr_matrix) -> bool:
    """Whether exponentiated values have totals more alike than those of counts could be."""
    if not rows.nnz or rows.data.max() > _LARGEST_LOG:
        return False
    values = rows.data.astype(np.float64)
    cell = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    n_seen = np.bincount(cell, weights=values > 0, minlength=rows.shape[0])
    largest = np.zeros(rows.shape[0])
    np.maximum.at(largest, cell, values)
    telling = n_seen >= _GENES
    n_telling = int(telling.sum())
    if n_telling < _CELLS or np.median(largest[telling]) < _TELLING_LOG:
        return False
    for base in (np.e, 2.0):
        rates = base**values - 1
        total = np.bincount(cell, weights=rates, minlength=rows.shape[0])[telling]
        squares = np.bincount(cell, weights=rates**2, minlength=rows.shape[0])[telling]
        # Each gene of a count varies by about as much as it is, most of all the largest ones.
        alone = float(np.median(squares / total**2)) ** 0.5
        found = float(np.log(total).std()) / alone
        # Few cells show a spread by chance, so more must be missing from it.
        if 0 < found * (1 + 2.5 / (2 * n_telling) ** 0.5) < _INDEPENDENT:
            return True
    return False
