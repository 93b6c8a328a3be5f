"""Counts of new cells, gene by gene distributed as measured ones.

Mean and dispersion do not make a distribution: a gene that is off in some cells and on in others
has more zeros and more high counts than a negative binomial of its mean and variance, and how much
of a library a gene takes may depend on the library's size. Trees see that first. So a count n that
was drawn for a cell goes to the count of equal rank among measured cells of about its size,

    n' = H^-1(F(n - 1) + U (F(n) - F(n - 1))),    U uniform on [0, 1),

F the distribution of counts that were drawn again for training cells, H that of those measured
(the randomised distributional transform, Rueschendorf 2009, J. Stat. Plan. Inference 139). Where
both agree every count stays; everywhere the order of counts stays, and with it what genes have to
do with one another. Measured shares are drawn to those of drawn cells as if these were 25 more.

In these bounds only: a cell whose library is smaller or larger than all of training, and a count
beyond those that were drawn for training cells, such as that of a gene under a perturbation never
seen, stay as they are.

What it gains is in ``docs/generation.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Cells of about one size: at least so many, in at most so many groups.
CELLS_PER_GROUP, MAX_GROUPS = 150, 8
PRIOR_CELLS = 25.0
# Counts up to here are told apart; further ones in classes, each this much wider than the last.
SINGLE_COUNTS, WIDER = 16, 1.2


@dataclass(frozen=True, eq=False)
class Margins:
    """Distributions of drawn and of measured counts of G genes in cells of L groups of size.

    Attributes
    ----------
    edges_K
        Smallest count of each of K - 1 classes, and the first beyond them, int64.
    log_size_L
        Where the groups of log size begin, and where the last one ends, shape (L + 1,).
    drawn_LGK, measured_LGK
        Share of cells below each edge, float32.
    n_states
        How many states of the model they were measured in; further ones, of an earlier training,
        keep their counts.
    """

    edges_K: np.ndarray
    log_size_L: np.ndarray
    drawn_LGK: np.ndarray
    measured_LGK: np.ndarray
    n_states: int

    @classmethod
    def none(cls) -> Margins:
        """Every count stays."""
        empty = np.zeros((0, 0, 1), dtype=np.float32)
        return cls(np.zeros(1, dtype=np.int64), np.zeros(1), empty, empty, 0)

    @classmethod
    def of(
        cls,
        measured_NG: np.ndarray,
        size_N: np.ndarray,
        drawn_MG: np.ndarray,
        drawn_size_M: np.ndarray,
        n_states: int,
    ) -> Margins:
        """Compare counts of N measured cells with those of M that were drawn.

        Parameters
        ----------
        measured_NG, size_N
            Measured counts, and the size factors of the cells.
        drawn_MG, drawn_size_M
            The same of drawn cells.
        n_states
            How many states the model has.
        """
        edges_K = _edges(max(measured_NG.max(initial=0), drawn_MG.max(initial=0)))
        log_size_N, log_size_M = np.log(size_N), np.log(drawn_size_M)
        n_groups = int(np.clip(len(size_N) // CELLS_PER_GROUP, 1, MAX_GROUPS))
        log_size_L = np.quantile(log_size_N, np.linspace(0, 1, n_groups + 1))
        found = []
        for group_N, group_M in zip(
            _in_groups(log_size_N, log_size_L), _in_groups(log_size_M, log_size_L), strict=True
        ):
            drawn_GK = _histogram(drawn_MG[group_M], edges_K) / max(len(group_M), 1)
            measured_GK = PRIOR_CELLS * drawn_GK
            if len(group_M):
                measured_GK += _histogram(measured_NG[group_N], edges_K)
            found.append((_cumulative(drawn_GK), _cumulative(measured_GK)))
        drawn_LGK, measured_LGK = (np.stack(each) for each in zip(*found, strict=True))
        return cls(edges_K, log_size_L, drawn_LGK, measured_LGK, n_states)

    def groups(self, size_B: np.ndarray, row_B: np.ndarray) -> np.ndarray:
        """The group of B cells with sizes and states, -1 for those whose counts stay, (B,)."""
        if len(self.drawn_LGK) == 0:
            return np.full(len(size_B), -1)
        log_size_B = np.log(size_B.astype(np.float64))
        group_B = np.searchsorted(self.log_size_L[1:-1], log_size_B, side="right")
        # Sizes are float32 in one place and float64 in another.
        lowest, highest = self.log_size_L[0] - 1e-5, self.log_size_L[-1] + 1e-5
        known_B = (log_size_B >= lowest) & (log_size_B <= highest) & (row_B < self.n_states)
        return np.where(known_B, group_B, -1)

    def moved(
        self, counts_BG: np.ndarray, group_B: np.ndarray, uniform_BG: np.ndarray
    ) -> np.ndarray:
        """Counts of B cells in these groups, from those that were drawn for them, (B, G)."""
        moved_BG = counts_BG.copy()
        for group in np.unique(group_B[group_B >= 0]):
            own = np.flatnonzero(group_B == group)
            moved_BG[own] = self._moved(int(group), counts_BG[own], uniform_BG[own])
        return moved_BG

    def _moved(self, group: int, counts_BG: np.ndarray, uniform_BG: np.ndarray) -> np.ndarray:
        drawn_GK, measured_GK = self.drawn_LGK[group], self.measured_LGK[group]
        # Most counts are zeros that stay.
        stays_BG = (counts_BG == 0) & (uniform_BG * drawn_GK[:, 1] < measured_GK[:, 1])
        at = np.nonzero(~stays_BG & (counts_BG < self.edges_K[-1]))
        gene_e, count_e, uniform_e = at[1], counts_BG[at], uniform_BG[at]
        width_K = np.diff(self.edges_K)
        class_e = np.searchsorted(self.edges_K, count_e, side="right") - 1
        below_e, up_to_e = (drawn_GK[gene_e, class_e + i].astype(np.float64) for i in (0, 1))
        within_e = (count_e - self.edges_K[class_e] + uniform_e) / width_K[class_e]
        rank_e = np.minimum(below_e + within_e * (up_to_e - below_e), 1 - 1e-7)
        class_e = (measured_GK[gene_e, 1:] <= rank_e[:, None]).sum(1)
        first_e, last_e = (measured_GK[gene_e, class_e + i].astype(np.float64) for i in (0, 1))
        within_e = ((rank_e - first_e) / (last_e - first_e)).clip(0, 1 - 1e-9)
        count_e = self.edges_K[class_e] + (within_e * width_K[class_e]).astype(np.int64)
        moved_BG = counts_BG.copy()
        # What was never drawn for training cells has no rank among them.
        known_e = up_to_e > below_e
        moved_BG[at[0][known_e], gene_e[known_e]] = count_e[known_e]
        return moved_BG

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        return {
            "edges": self.edges_K,
            "log_size": self.log_size_L,
            "drawn": self.drawn_LGK,
            "measured": self.measured_LGK,
            "n_states": np.array([self.n_states]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], n_genes: int) -> Margins:
        """Rebuild what :meth:`arrays` wrote; in older models every count stays.

        Raises
        ------
        ValueError
            If the arrays do not fit one another or G genes.
        """
        if "edges" not in arrays:
            return cls.none()
        edges_K, log_size_L = arrays["edges"], arrays["log_size"]
        pair = arrays["drawn"], arrays["measured"]
        n_groups = len(log_size_L) - 1
        shape = n_groups, n_genes if n_groups else 0, len(edges_K)
        if any(array.shape != shape for array in pair):
            raise ValueError("its distributions of counts do not fit its genes")
        return cls(edges_K, log_size_L, *pair, int(arrays["n_states"][0]))


@dataclass(frozen=True, eq=False)
class CellMargins:
    """The margins of B cells, looked up by their groups of size."""

    margins: Margins
    group_B: np.ndarray

    def moved(self, cell: int, counts_G: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Counts of one of the cells, int64, (G,), from those that were drawn for it."""
        uniform_1G = rng.random(counts_G.shape)[None]
        return self.margins.moved(counts_G[None], self.group_B[cell : cell + 1], uniform_1G)[0]


def _edges(most: float) -> np.ndarray:
    edges = list(range(SINGLE_COUNTS + 1))
    while edges[-1] <= most:
        edges.append(int(np.ceil(edges[-1] * WIDER)))
    return np.array(edges, dtype=np.int64)


def _in_groups(log_size_N: np.ndarray, log_size_L: np.ndarray) -> list[np.ndarray]:
    group_N = np.searchsorted(log_size_L[1:-1], log_size_N, side="right")
    return [np.flatnonzero(group_N == group) for group in range(len(log_size_L) - 1)]


def _histogram(counts_NG: np.ndarray, edges_K: np.ndarray) -> np.ndarray:
    """Cells by gene and class, (G, K - 1)."""
    n_genes, n_classes = counts_NG.shape[1], len(edges_K) - 1
    class_NG = np.searchsorted(edges_K, counts_NG, side="right") - 1
    place_NG = class_NG + n_classes * np.arange(n_genes)
    filled = np.bincount(place_NG.ravel(), minlength=n_genes * n_classes)
    return filled.reshape(n_genes, n_classes).astype(np.float64)


def _cumulative(cells_GK: np.ndarray) -> np.ndarray:
    """Share of cells below each edge, (G, K); without cells, all of them in the lowest class."""
    below_GK = np.concatenate([np.zeros((len(cells_GK), 1)), cells_GK.cumsum(1)], axis=1)
    empty_G = below_GK[:, -1] == 0
    below_GK[empty_G, 1:] = 1.0
    return (below_GK / below_GK[:, -1:]).astype(np.float32)
