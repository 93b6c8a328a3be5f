"""What a table says of genes beyond what the latent can say: what a straight decoder leaves over.

A latent has no room for what a perturbation never seen does to single genes, to its own target
first of all. Where a table's value lies further from the decoded one than noise explains (by three
standard errors), the rest r is kept, drawn to zero by its variance v as James & Stein (1961) have
it, r (1 - v / r²). The target itself is always kept, as what is left of it by how much targets
usually change, r s² / (s² + v).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from celldit.data.symbols import human_symbols
from celldit.effects.tables.matching import MatchedTable
from celldit.effects.tables.projection import LEAST_ERROR, typical_variance

FAR = 3.0
# Of log rate: how much targets change.
TARGETS = 2.0


@dataclass(frozen=True, eq=False)
class TableResiduals:
    """Further changes of log rates, of P perturbations in H genes that have any.

    Mostly zero; what is stored of a perturbation's own target was measured, whatever it is.
    """

    genes: tuple[str, ...]
    values_PH: sparse.csr_matrix

    @cached_property
    def _column(self) -> dict[str, int]:
        return {gene: h for h, gene in enumerate(self.genes)}

    def of(self, row: int, genes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Values of one perturbation in a model's genes, (G,), and which of these are stored."""
        line = self.values_PH[row]
        of_gene = dict(zip(line.indices.tolist(), line.data.tolist(), strict=True))
        columns = [self._column.get(gene, -1) for gene in genes]
        values_G = np.array([of_gene.get(h, 0.0) for h in columns])
        return values_G, np.array([h in of_gene for h in columns], dtype=bool)

    def arrays(self) -> np.ndarray:
        """Row, column and value of each entry, float32, shape (3, entries)."""
        entries = sparse.coo_matrix(self.values_PH)
        return np.array([entries.row, entries.col, entries.data], dtype=np.float32)

    @classmethod
    def from_arrays(cls, genes: Sequence[str], n_rows: int, entries: np.ndarray) -> TableResiduals:
        """Rebuild what :meth:`arrays` gave; ValueError if entries lie outside."""
        row, column, value = entries
        inside = not len(row) or (
            min(row.min(), column.min()) >= 0 and row.max() < n_rows and column.max() < len(genes)
        )
        if not inside:
            raise ValueError("its table of effects has genes or rows that it does not name")
        where = row.astype(np.int64), column.astype(np.int64)
        return cls(tuple(genes), sparse.csr_matrix((value, where), shape=(n_rows, len(genes))))


def table_residuals(
    given: MatchedTable,
    loadings_FG: np.ndarray,
    keys: Sequence[tuple[str, ...]],
    means_PF: np.ndarray,
) -> TableResiduals:
    """Read a table once more, for what shifts of the P perturbations in the latent leave over.

    Table and loadings are as in :func:`celldit.effects.tables.projection.project`.
    """
    loads_FM = loadings_FG[:, given.own]
    usual_M = typical_variance(given)
    # Targets are named as the table names genes, or as the model does.
    both = [given.table.genes[g] for g in given.theirs], given.genes
    place = {s: m for names in both for m, s in enumerate(human_symbols(names))}
    row_of = {key: row for row, key in enumerate(keys)}
    rows_N = np.array([row_of[key] for key in given.keys])
    parts = sorted({part for key in given.keys for part in key})
    column = {p: place[s] for p, s in zip(parts, human_symbols(parts), strict=True) if s in place}
    own = [[column[part] for part in key if part in column] for key in given.keys]
    entries = []
    for rows, effects_BM, errors_BM in given.blocks():
        rest_BM = effects_BM - means_PF[rows_N[rows]] @ loads_FM
        variance_BM = np.broadcast_to(usual_M, rest_BM.shape) + LEAST_ERROR**2
        if errors_BM is not None:
            said_BM = errors_BM**2
            variance_BM = np.where(np.isfinite(said_BM), said_BM, usual_M) + LEAST_ERROR**2
        measured_BM = np.isfinite(rest_BM)
        rest_BM = np.where(measured_BM, rest_BM, 0)
        kept_BM = np.where(
            rest_BM**2 > FAR**2 * variance_BM,
            rest_BM - variance_BM / np.where(rest_BM == 0, 1, rest_BM),
            0,
        )
        row_E, gene_E = np.nonzero(kept_BM)
        entries.append(np.array([rows_N[rows][row_E], gene_E, kept_BM[row_E, gene_E]]))
        for b, targets in enumerate(own[rows.start : rows.stop]):
            for m in (m for m in targets if measured_BM[b, m]):
                value = rest_BM[b, m] * TARGETS**2 / (TARGETS**2 + variance_BM[b, m])
                # In place of what may be there already, and never quite nothing.
                more = value - kept_BM[b, m] or 1e-9
                entries.append(np.array([[rows_N[rows.start + b]], [m], [more]]))
    row_E, gene_E, value_E = np.concatenate(entries, axis=1)
    times_P = np.bincount(rows_N, minlength=len(keys))
    used, column_E = np.unique(gene_E.astype(np.int64), return_inverse=True)
    where = row_E.astype(np.int64), column_E
    values = sparse.csr_matrix(
        (value_E / times_P[where[0]], where), shape=(len(keys), len(used)), dtype=np.float32
    )
    return TableResiduals(tuple(given.genes[m] for m in used), values)
