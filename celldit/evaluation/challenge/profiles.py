"""Expression profile of a group of cells, and how much of it is sampling noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from celldit.evaluation.challenge.groups import CountGroups

#: The counts of a group are scaled to this sum before the logarithm.
TARGET_SUM = 50_000.0

# Dense rows of the jackknife that are held at a time.
CHUNK = 128


@dataclass(frozen=True, eq=False)
class Profiles:
    """Profiles of P groups.

    Parameters
    ----------
    means
        log(1 + share of the group's counts x 50,000), shape (P, G).
    noise
        Squared error that the choice of cells puts into each profile, summed over genes, shape
        (P,): the jackknife over cells.
    """

    means: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, groups: CountGroups) -> Profiles:
        """Measure groups of cells, their noise by the jackknife (Efron & Stein 1981)."""
        sums_PG = groups.sums()
        totals_P = sums_PG.sum(axis=1, keepdims=True)
        scale_P = np.divide(TARGET_SUM, totals_P, out=np.zeros_like(totals_P), where=totals_P > 0)
        means_PG = np.log1p(sums_PG * scale_P)
        noise_P = np.zeros(len(groups.labels))
        for p, rows in enumerate(groups.rows()):
            if len(rows) > 1 and totals_P[p, 0] > 0:
                noise_P[p] = _jackknife(groups, rows, sums_PG[p], means_PG[p])
        return cls(means_PG, noise_P)


def _jackknife(
    groups: CountGroups, rows: np.ndarray, sums_G: np.ndarray, mean_G: np.ndarray
) -> float:
    """Variance of a profile over leaving out one cell, summed over genes."""
    n, total = len(rows), float(sums_G.sum())
    first_G, second_G = np.zeros_like(sums_G), np.zeros_like(sums_G)
    for start in range(0, n, CHUNK):
        counts_CG = groups.counts[rows[start : start + CHUNK]].toarray().astype(np.float64)
        rest_C = total - counts_CG.sum(axis=1)
        without_CG = np.subtract(sums_G, counts_CG, out=counts_CG)
        without_CG *= (TARGET_SUM / np.where(rest_C > 0, rest_C, 1.0))[:, None]
        np.log1p(without_CG, out=without_CG)
        without_CG -= mean_G
        without_CG[rest_C <= 0] = -mean_G
        first_G += without_CG.sum(axis=0)
        second_G += np.einsum("cg,cg->g", without_CG, without_CG)
    return max((n - 1) / n * float((second_G - first_G**2 / n).sum()), 0.0)
