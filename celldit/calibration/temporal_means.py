"""What the controls of a context look like at each time of training.

A cell that is sent to another time of training can be held to what was measured there; see
:mod:`celldit.inference.time.offsets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from celldit.calibration.fit_means import log_expression
from celldit.conditions import ConditionTable
from celldit.conditions.strata import StratumKey
from celldit.data.store import CellStore

# Fewer controls say too little about the mean of a gene.
MIN_CELLS = 20


@dataclass(frozen=True, eq=False)
class TemporalMeans:
    """Mean log expression of controls through time.

    Attributes
    ----------
    means
        Of each context and time, shape (G,); only of contexts that were seen at several times.
    """

    means: Mapping[StratumKey, np.ndarray]

    @classmethod
    def fit(cls, cells: CellStore, table: ConditionTable) -> TemporalMeans:
        """Measure training cells.

        Parameters
        ----------
        cells, table
            Training cells and their conditions.
        """
        rows: dict[StratumKey, int] = {}
        for i, condition in enumerate(table.conditions):
            timed = condition.is_control and condition.time is not None
            if timed and table.counts[i] >= MIN_CELLS:
                rows[condition.stratum] = i
        contexts = [context for context, _ in rows]
        several = {key: i for key, i in rows.items() if contexts.count(key[0]) > 1}
        if not several:
            return cls({})
        mean_CG, _ = log_expression(cells, table)
        return cls({key: mean_CG[i].astype(np.float32) for key, i in several.items()})

    def knows(self, start: StratumKey, end: StratumKey) -> bool:
        """Whether these are one context at two times that were measured."""
        return start != end and start in self.means and end in self.means and start[0] == end[0]

    def with_earlier(
        self, genes: Sequence[str], earlier: TemporalMeans, earlier_genes: Sequence[str]
    ) -> TemporalMeans:
        """Together with the contexts that only an earlier training knew, if it knew every gene.

        Parameters
        ----------
        genes, earlier_genes
            Of this course, and of the other.
        earlier
            The other.
        """
        place = {gene: i for i, gene in enumerate(earlier_genes)}
        if not all(gene in place for gene in genes):
            return self
        columns, own = [place[gene] for gene in genes], {context for context, _ in self.means}
        kept = {key: m_G[columns] for key, m_G in earlier.means.items() if key[0] not in own}
        return TemporalMeans({**kept, **self.means})

    def to_config(self) -> list[list[Any]]:
        """What the rows of :meth:`arrays` are of."""
        return [list(key) for key in self.means]

    def arrays(self) -> dict[str, np.ndarray]:
        """One row for each context and time, for safetensors; none where nothing is known."""
        return {"means": np.stack(list(self.means.values()))} if self.means else {}

    @classmethod
    def from_config(
        cls, keys: Sequence[Sequence[Any]], arrays: Mapping[str, np.ndarray], n_genes: int
    ) -> TemporalMeans:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote; older models have none.

        Raises
        ------
        ValueError
            If the arrays do not fit the contexts or the genes.
        """
        means_SG = arrays.get("means", np.empty((0, n_genes), dtype=np.float32))
        if means_SG.shape != (len(keys), n_genes):
            raise ValueError("its course fits neither its contexts nor its genes")
        return cls({(str(c), time): m_G for (c, time), m_G in zip(keys, means_SG, strict=True)})
