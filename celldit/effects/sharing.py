"""Conditions that share a perturbation, pair by pair, where most conditions share none.

Of 20,000 conditions a matrix conditions x conditions takes 3 GB, and decomposing it an hour. But
two conditions have only two things in common: the perturbations that they share, and what all
perturbations do in their strata. The first makes a sparse matrix of small blocks, in a screen of
single perturbations the contexts of each; the second has the rank of the covariance between strata.
So the covariance is that of blocks and of a few columns W,

    K = blocks + W Wᵀ,   W Wᵀ = a aᵀ ∘ D,

a how much of any perturbation a condition has, D the covariance of what is common to all in two
strata. Nothing is left out. Features tie every perturbation to every other, and combinations may
tie all conditions into one block: then K is dense.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from celldit.conditions.condition import Condition
from celldit.effects.kernel import ConditionKernel, Lengths, parts_and_doses
from celldit.effects.posterior import Observed
from celldit.effects.shared_noise import SharedNoise
from celldit.errors import InputError, OutOfMemoryError
from celldit.memory import bound

SMALL = 200
"""Conditions up to which one block is as good as many."""
LARGEST_SHARE = 0.5
"""Share of the conditions in one block above which the others gain nothing."""
RELATIVE_RANK = 1e-12
MOST_STRATA = 1_000
MATRICES = 5
"""Matrices conditions x conditions that are held at once where all of them are one block."""


@dataclass(frozen=True, eq=False)
class SharedParts:
    """Pairs (i, j) of conditions of two lists that share perturbations.

    Attributes
    ----------
    row_E, column_E
        Their positions.
    amount_E
        Sum over shared perturbations of the product of how much either has, times the share of its
        variance that is left where its effect was measured elsewhere.
    pair_T, amount_T, gap_T
        Every perturbation that a pair shares: which pair, that product, and the squared distance
        of the doses on the log scale.
    """

    row_E: np.ndarray
    column_E: np.ndarray
    amount_E: np.ndarray
    pair_T: np.ndarray
    amount_T: np.ndarray
    gap_T: np.ndarray

    @classmethod
    def of(
        cls, kernel: ConditionKernel, a: Sequence[Condition], b: Sequence[Condition]
    ) -> SharedParts:
        """Find the pairs."""
        number = {part: i for i, part in enumerate(sorted({p for c in (*a, *b) for p in c.parts}))}
        (row_a, part_a, share_a, level_a), (row_b, part_b, share_b, level_b) = (
            _entries(kernel, x, number) for x in (a, b)
        )
        order = np.argsort(part_b, kind="stable")
        n_b = np.bincount(part_b, minlength=len(number))
        first_b = np.concatenate([[0], np.cumsum(n_b)])[:-1]
        times_T = n_b[part_a]
        left_T = np.repeat(np.arange(len(part_a)), times_T)
        within_T = np.arange(len(left_T)) - np.repeat(np.cumsum(times_T) - times_T, times_T)
        right_T = order[first_b[part_a[left_T]] + within_T]
        amount_T = share_a[left_T] * share_b[right_T]
        left_P = np.array([kernel.part_shares.get(part, 1.0) for part in number])
        where, pair_T = np.unique(row_a[left_T] * len(b) + row_b[right_T], return_inverse=True)
        amount_E = np.bincount(pair_T, amount_T * left_P[part_a[left_T]], minlength=len(where))
        return cls(
            where // max(len(b), 1),
            where % max(len(b), 1),
            amount_E.astype(np.float64),
            pair_T,
            amount_T,
            (level_a[left_T] - level_b[right_T]) ** 2,
        )


def check_size(conditions: Sequence[Condition], covariates: Sequence[str], tied: bool) -> None:
    """Refuse conditions whose effect model would not fit, before any work.

    `tied` says whether features tie every perturbation to every other; `covariates` are those whose
    values are the contexts.

    Raises
    ------
    InputError
        If there are more than 1,000 contexts and times.
    OutOfMemoryError
        If all conditions are one block, and its matrices take more than the memory.
    """
    treated = [c for c in conditions if not c.is_control]
    n_strata, n = len({c.stratum for c in conditions}), len(treated)
    if n_strata > MOST_STRATA:
        raise InputError(
            f"covariate_keys={list(covariates)!r} make {n_strata:,} contexts (and times) of "
            f"{n:,} conditions; celldit compares each with each and takes at most "
            f"{MOST_STRATA:,}. Name fewer covariates, or coarser ones: plates rather than wells."
        )
    needed, (most, limit) = MATRICES * 8.0 * n**2, bound()
    if needed > most and (tied or _largest_block(treated) > LARGEST_SHARE * n):
        why = "features tie every perturbation to every other" if tied else (
            "combinations tie most of them together"
        )  # fmt: skip
        raise OutOfMemoryError(
            f"The effect model of {n:,} conditions takes about {needed / 1e9:,.1f} GB, since "
            f"{why}; {limit} is {most / 1e9:,.1f} GB. Train on fewer conditions"
            + (", or without features." if tied else ".")
        )


def _largest_block(conditions: Sequence[Condition]) -> int:
    """Conditions of the largest block that shared perturbations make."""
    number = {part: i for i, part in enumerate(sorted({p for c in conditions for p in c.parts}))}
    pairs = [(row, number[p]) for row, c in enumerate(conditions) for p in c.parts]
    row, part = np.array(pairs, dtype=np.int64).T
    n = len(conditions) + len(number)
    graph = sparse.coo_matrix((np.ones(len(row)), (row, len(conditions) + part)), (n, n))
    _, block = connected_components(graph, directed=False)
    return int(np.bincount(block[: len(conditions)]).max())


def _entries(
    kernel: ConditionKernel, conditions: Sequence[Condition], number: dict[str, int]
) -> tuple[np.ndarray, ...]:
    """Row, perturbation, share and log dose of every part of some conditions."""
    found = [
        (row, number[part], *kernel.share_and_level(part, dose))
        for row, condition in enumerate(conditions)
        for part, dose in parts_and_doses(condition)
    ]
    row, part, share, level = np.array(found, dtype=np.float64).reshape(-1, 4).T
    return row.astype(np.int64), part.astype(np.int64), share, level


@dataclass(frozen=True, eq=False)
class SharingKernel:
    """A kernel with its weights and lengths, between some conditions and C observed ones.

    Attributes
    ----------
    kernel, weights, lengths
        As of :class:`celldit.effects.prior.EffectPrior`.
    conditions
        The C observed conditions.
    """

    kernel: ConditionKernel
    weights: np.ndarray
    lengths: tuple[float, float, float]
    conditions: tuple[Condition, ...]

    @property
    def _lengths(self) -> Lengths:
        return Lengths(*torch.tensor(self.lengths, dtype=torch.float64))

    def dense(self, a: Sequence[Condition], b: Sequence[Condition]) -> np.ndarray:
        """All of the covariance, shape (A, B)."""
        weights = torch.tensor(self.weights)
        return self.kernel.covariance(self.kernel.design(a, b), weights, self._lengths).numpy()

    @cached_property
    def _of_observed(self) -> sparse.csr_matrix | None:
        """The blocks; None where all of it is one."""
        ties = [w for w, t in zip(self.weights, self.kernel.terms, strict=True)
                if t.startswith("feature:") and w != 0]  # fmt: skip
        n = len(self.conditions)
        if ties or n <= SMALL:
            return None
        uses = np.unique([p for c in self.conditions for p in c.parts], return_counts=True)[1]
        if (uses.astype(np.float64) ** 2).sum() > LARGEST_SHARE * n**2:
            return None
        blocks = self._blocks(self.conditions)
        _, block_C = connected_components(blocks, directed=False)
        return None if np.bincount(block_C).max() > LARGEST_SHARE * n else blocks

    def knowing(self, kernel: ConditionKernel) -> SharingKernel:
        """The same with a kernel that knows further contexts, in which nothing was observed."""
        further = replace(self, kernel=kernel)
        names = ("_of_observed", "_root")
        further.__dict__.update({n: getattr(self, n) for n in names if n in self.__dict__})
        return further

    @property
    def is_dense(self) -> bool:
        """Whether conditions make one block."""
        return self._of_observed is None

    def own(self, a: Sequence[Condition]) -> np.ndarray | sparse.csr_matrix:
        """Covariance without what :meth:`columns` give, shape (A, C)."""
        if self.is_dense:
            return self.dense(a, self.conditions)
        return self._of_observed if a is self.conditions else self._blocks(a)

    def _blocks(self, a: Sequence[Condition]) -> sparse.csr_matrix:
        b, kernel = self.conditions, self.kernel
        pairs = SharedParts.of(kernel, a, b)
        design = kernel.design_of_pairs(a, b, pairs)
        own = torch.tensor(self.weights * [not _is_common(t) for t in kernel.terms])
        values_E = kernel.covariance(design, own, self._lengths).numpy()
        return sparse.csr_matrix((values_E, (pairs.row_E, pairs.column_E)), (len(a), len(b)))

    @cached_property
    def _root(self) -> tuple[list[Condition], np.ndarray]:
        """The observed strata, and D^-1 times a square root of D, (X, R)."""
        strata = _usual({c.stratum: c for c in self.conditions}.values())
        values, vectors = np.linalg.eigh(self._similarity(strata, strata))
        kept = values > RELATIVE_RANK * max(values.max(initial=0), 0)
        return strata, vectors[:, kept] / np.sqrt(values[kept])

    def _similarity(self, a: Sequence[Condition], b: Sequence[Condition]) -> np.ndarray:
        """D between strata, each as a condition with one usual perturbation."""
        common = self.weights * [_is_common(t) for t in self.kernel.terms]
        return replace(self, weights=common).dense(a, b)

    def columns(self, a: Sequence[Condition]) -> np.ndarray:
        """W of some conditions, shape (A, R); no columns where :meth:`own` is all."""
        if self.is_dense:
            return np.zeros((len(a), 0))
        strata, root_XR = self._root
        usual = _usual({c.stratum: c for c in a}.values())
        place = {c.stratum: i for i, c in enumerate(usual)}
        of_strata = self._similarity(usual, strata) @ root_XR
        at_A = np.array([place[c.stratum] for c in a], dtype=np.int64)
        columns_AR: np.ndarray = self.kernel.totals(a)[:, None] * of_strata[at_A]
        return columns_AR

    def observed(
        self,
        shifts_CF: np.ndarray,
        noise_C: np.ndarray,
        signal_F: np.ndarray,
        common_F: np.ndarray,
        further: Sequence[np.ndarray] = (),
        shared: SharedNoise | None = None,
    ) -> Observed:
        """What was observed of the C conditions, in F dimensions."""
        own = self.conditions
        totals_C = self.kernel.totals(own)
        kernel_CC, columns_CR = self.own(own), self.columns(own)
        return Observed(
            shifts_CF, noise_C, totals_C, kernel_CC, signal_F, common_F, further, columns_CR, shared
        )


def _is_common(term: str) -> bool:
    return term.startswith("common @ ")


def _usual(conditions: Iterable[Condition]) -> list[Condition]:
    """One unit of a perturbation that is like no other, in the strata of some conditions."""
    return [Condition(("",), None, c.context, c.time) for c in conditions]
