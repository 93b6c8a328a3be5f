"""Counts of new cells, gene by gene distributed as measured ones.

A gene that is off in some cells and on in others has more zeros and more high counts than a
negative binomial of its mean and variance. So a count n that was drawn for a cell goes to the count
of equal rank among measured cells of about its size,

    n' = H^-1(F(n - 1) + U (F(n) - F(n - 1))),    U in [0, 1),

F the distribution of counts that were drawn from noise for training cells, H that of the cells as
measured, both over all states and conditions together (the randomised distributional transform,
Rueschendorf 2009, J. Stat. Plan. Inference 139). The order of counts stays, and with it what genes
have to do with one another. Measured shares are drawn to those of drawn cells as if these were 25
more.

U is uniform but for zeros: where measured ones are fewer than drawn ones, which of these become
counts is drawn in proportion to what the cell was expected to have of the gene, so that a gene that
is knocked out in a cell stays out.

A cell whose library is smaller or larger than all of training keeps its counts. Counts beyond all
that were drawn for training cells, as of a gene under a perturbation never seen, do not fall.

What it gains is in ``docs/generation.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Sizes are float32 in one place and float64 in another.
SLACK = 1e-5
MOST_FACTOR, TINY = 4.0, 1e-6
STEPS = 65_535
MOST_EDGES = 256


@dataclass(frozen=True, eq=False)
class CountQuantiles:
    """Distributions of drawn and of measured counts of G genes in cells of L groups of size.

    Attributes
    ----------
    edges_K
        Smallest count of each of K - 1 classes, and the first beyond them, int64.
    log_size_L
        Where the groups of log size begin, and where the last one ends, shape (L + 1,).
    drawn_LGK, measured_LGK
        Share of cells below each edge, float32.
    silent_LG
        Expected count with which a zero becomes a count as often as zeros do on average, float32.
    n_states
        How many states of the model they were measured in; further ones, of an earlier training,
        keep their counts.
    """

    edges_K: np.ndarray
    log_size_L: np.ndarray
    drawn_LGK: np.ndarray
    measured_LGK: np.ndarray
    silent_LG: np.ndarray
    n_states: int

    @classmethod
    def none(cls) -> CountQuantiles:
        """Every count stays."""
        empty = np.zeros((0, 0, 1), dtype=np.float32)
        return cls(np.zeros(1, dtype=np.int64), np.zeros(1), empty, empty, empty[:, :, 0], 0)

    def groups(self, size_B: np.ndarray, row_B: np.ndarray) -> np.ndarray:
        """The group of B cells with sizes and states, -1 for those whose counts stay, (B,)."""
        if len(self.drawn_LGK) == 0:
            return np.full(len(size_B), -1)
        log_size_B = np.log(size_B.astype(np.float64))
        group_B = np.searchsorted(self.log_size_L[1:-1], log_size_B, side="right")
        lowest, highest = self.log_size_L[0] - SLACK, self.log_size_L[-1] + SLACK
        known_B = (log_size_B >= lowest) & (log_size_B <= highest) & (row_B < self.n_states)
        return np.where(known_B, group_B, -1)

    def moved(
        self,
        counts_BG: np.ndarray,
        expected_BG: np.ndarray,
        group_B: np.ndarray,
        uniform_BG: np.ndarray,
    ) -> np.ndarray:
        """Counts of B cells, (B, G), from those that were drawn for them.

        Parameters
        ----------
        counts_BG, expected_BG
            What was drawn, and the expectation that it was drawn from.
        group_B
            From :meth:`groups`.
        uniform_BG
            A uniform number for each count.
        """
        moved_BG = counts_BG.copy()
        for group in np.unique(group_B[group_B >= 0]):
            own = np.flatnonzero(group_B == group)
            of_group = counts_BG[own], expected_BG[own], uniform_BG[own]
            moved_BG[own] = self._moved(int(group), *of_group)
        return moved_BG

    def _moved(
        self, group: int, counts_BG: np.ndarray, expected_BG: np.ndarray, uniform_BG: np.ndarray
    ) -> np.ndarray:
        drawn_GK, measured_GK = self.drawn_LGK[group], self.measured_LGK[group]
        moved_BG = counts_BG.copy()
        is_zero_BG = moved_BG == 0
        # A zero leaves if U is among the last; how many do stays, which do goes by expectation.
        weight_BG = expected_BG / self.silent_LG[group].clip(TINY)
        by_weight_BG = 1 - (1 - uniform_BG) / weight_BG.clip(TINY)
        uniform_BG = np.where(is_zero_BG, by_weight_BG.clip(0), uniform_BG)
        # Most counts are zeros that stay.
        stays_BG = is_zero_BG & (uniform_BG * drawn_GK[:, 1] < measured_GK[:, 1])
        at = np.nonzero(~stays_BG & (moved_BG < self.edges_K[-1]))
        gene_e, count_e, uniform_e = at[1], moved_BG[at], uniform_BG[at]
        width_K = np.diff(self.edges_K)
        class_e = np.searchsorted(self.edges_K, count_e, side="right") - 1
        below_e, up_to_e = (drawn_GK[gene_e, class_e + i].astype(np.float64) for i in (0, 1))
        within_e = (count_e - self.edges_K[class_e] + uniform_e) / width_K[class_e]
        rank_e = np.minimum(below_e + within_e * (up_to_e - below_e), 1 - 1e-7)
        class_e = np.searchsorted(self._ranks_LE[group], rank_e + gene_e, side="right")
        class_e = class_e - gene_e * len(width_K)
        first_e, last_e = (measured_GK[gene_e, class_e + i].astype(np.float64) for i in (0, 1))
        within_e = ((rank_e - first_e) / (last_e - first_e)).clip(0, 1 - 1e-9)
        found_e = self.edges_K[class_e] + (within_e * width_K[class_e]).astype(np.int64)
        # Above all that was drawn for training cells there are no ranks.
        moved_BG[at] = np.where(below_e >= 1, np.maximum(count_e, found_e), found_e)
        return moved_BG

    @cached_property
    def _ranks_LE(self) -> np.ndarray:
        """Measured shares at the end of each class, those of gene g raised by g, in one row."""
        n_genes = self.measured_LGK.shape[1]
        raised_LGK = self.measured_LGK[:, :, 1:].astype(np.float64) + np.arange(n_genes)[:, None]
        return raised_LGK.reshape(len(raised_LGK), -1)

    def factors(self, group_B: np.ndarray) -> np.ndarray:
        """By how much the step changes the mean count of cells in these groups, (B, G)."""
        factor_BG = self._factors_LG[group_B.clip(0)] if len(self._factors_LG) else 1.0
        return np.where(group_B[:, None] >= 0, factor_BG, np.float32(1))

    @cached_property
    def _factors_LG(self) -> np.ndarray:
        middle_K = (self.edges_K[:-1] + self.edges_K[1:] - 1) / 2
        drawn_LG, measured_LG = (
            np.diff(cumulative_LGK.astype(np.float64), axis=2) @ middle_K
            for cumulative_LGK in (self.drawn_LGK, self.measured_LGK)
        )
        factor_LG = (measured_LG + TINY) / (drawn_LG + TINY)
        return factor_LG.clip(1 / MOST_FACTOR, MOST_FACTOR).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors; shares in steps take a tenth of the room."""
        found = {
            "edges": self.edges_K,
            "log_size": self.log_size_L,
            "silent": self.silent_LG,
            "n_states": np.array([self.n_states]),
        }
        for name, below_LGK in (("drawn", self.drawn_LGK), ("measured", self.measured_LGK)):
            # Models of earlier versions have shares between the steps, and keep them.
            if np.array_equal(in_steps(below_LGK), below_LGK):
                found[f"{name}_steps"], found[f"{name}_ends"] = packed(below_LGK)
            else:
                found[name] = below_LGK
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], n_genes: int) -> CountQuantiles:
        """Rebuild what :meth:`arrays` wrote; in older models every count stays.

        Raises
        ------
        ValueError
            If the arrays do not fit one another or G genes.
        """
        if "edges" not in arrays:
            return cls.none()
        edges_K, log_size_L = arrays["edges"], arrays["log_size"]
        silent_LG, n_groups = arrays["silent"], len(log_size_L) - 1
        if silent_LG.shape != (n_groups, n_genes if n_groups else 0):
            raise ValueError("its distributions of counts do not fit its genes")
        pair = [
            arrays[name]
            if name in arrays
            else unpacked(arrays[f"{name}_steps"], arrays[f"{name}_ends"], len(edges_K))
            for name in ("drawn", "measured")
        ]
        shape = n_groups, n_genes if n_groups else 0, len(edges_K)
        if any(array.shape != shape for array in pair):
            raise ValueError("its distributions of counts do not fit its genes")
        drawn_LGK, measured_LGK = pair
        n_states = int(arrays["n_states"][0])
        return cls(edges_K, log_size_L, drawn_LGK, measured_LGK, silent_LG, n_states)


def in_steps(below_LGK: np.ndarray) -> np.ndarray:
    """Shares rounded to 65,535ths, which is less than one cell in all that are compared."""
    return (np.rint(below_LGK * STEPS) / STEPS).astype(np.float32)


def packed(below_LGK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares in steps, uint16, of each gene between its zero and its first one; how many, (L, G).

    Of most genes there are next to no counts beyond the first few.
    """
    steps_LGK = np.rint(below_LGK * STEPS).astype(np.uint16)
    inner_LGK = (np.arange(below_LGK.shape[2]) > 0) & (steps_LGK < STEPS)
    return steps_LGK[inner_LGK], inner_LGK.sum(axis=2).astype(np.uint16)


def unpacked(steps: np.ndarray, ends_LG: np.ndarray, n_edges: int) -> np.ndarray:
    """Undo :func:`packed`, float32, shape (L, G, K).

    Raises
    ------
    ValueError
        If the steps do not fit their numbers.
    """
    if n_edges > MOST_EDGES:
        raise ValueError("its distributions of counts have more classes than there are counts")
    place_K = np.arange(n_edges)
    inner_LGK = (place_K > 0) & (place_K <= ends_LG[:, :, None])
    if inner_LGK.sum() != len(steps):
        raise ValueError("its distributions of counts do not fit one another")
    steps_LGK = np.full(inner_LGK.shape, STEPS, dtype=np.uint16)
    steps_LGK[:, :, 0] = 0
    steps_LGK[inner_LGK] = steps
    return (steps_LGK / STEPS).astype(np.float32)
