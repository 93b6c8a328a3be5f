"""Which conditions resemble each other: the covariance of their effects, as a sum of named terms.

Every term says one sentence about effects, and its learned weight says how true it is here:

========================  =====================================================================
``part``                  conditions share the effects of the perturbations they have in common,
                          so combinations add up
``feature:NAME``          perturbations with similar features have similar effects, as this source
                          of features sees them
``interaction``           a combination has an effect of its own beyond the sum, in all contexts
``common @ ...``          all perturbations share one effect (the mean shift) that depends on ...
``... @ context``         the same, but only within one context (partial pooling over contexts)
``... @ similar``         the same, the more so the more similar the control cells of the contexts
``... @ time``            the same, the more so the closer the times
``... @ context, time``   the same within one context, the more so the closer the times
``part @ dose``           the same perturbation at close doses: the course over log dose may bend
========================  =====================================================================

The effect that all perturbations share everywhere has a variance of its own in each dimension of
the latent and is no term: see :mod:`celldit.effects.posterior`.

Doses scale a part's share by log2(1 + dose / d₀), d₀ the smallest positive dose of that part.
Beyond the trained doses the course goes on in proportion to that share, hence monotonically;
beyond the trained times the effect stays what it is at the nearest one.

Two perturbations are alike, to a source of features, by how close their rows of numbers are. Where
the rows are memberships in gene sets, each set has an effect that its members share, the kernel of
which is the inner product (Rasmussen & Williams 2006, section 2.1).

A source of features says nothing of a perturbation that it does not hold. That is not a vector of
zeros, which would claim that the perturbation is an average one: to such a source the perturbation
is like itself and like no other.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.spatial.distance import cdist
from torch import Tensor

from celldit.conditions.condition import Condition
from celldit.effects.features.features import FeatureMatrix

if TYPE_CHECKING:
    from celldit.effects.sharing import SharedParts

Position = tuple[str, float | None]
# exp(-FAR) is zero, and so is its derivative; an infinite distance would have none.
FAR = 1e6
# Perturbations whose features lie d apart are alike to exp(-d² / this), for unit rows d² = 2 - 2r.
# Close likeness counts, distant hardly does.
FEATURE_SCALE = 1.0


class Lengths(NamedTuple):
    """Squared distances at which similarity has fallen to exp(-1/2), each in its own unit.

    Attributes
    ----------
    context
        Between the control cells of two contexts; the unit is the median of training.
    time
        Between two times; the unit is the median of those of training, squared.
    dose
        Between two doses on the log scale; the unit is the widest range of training, squared.
    """

    context: Tensor
    time: Tensor
    dose: Tensor


@dataclass(frozen=True, eq=False)
class ConditionKernel:
    """Covariance between the effects of conditions, up to one positive weight per term.

    Parameters
    ----------
    parts
        The perturbations of training, P of them.
    unit_doses
        For each part its smallest positive dose, which counts as 1; 1 where there are none.
    features
        Feature matrices by source, indexed by perturbation: ``{source: (names, matrix)}``, from
        :func:`celldit.effects.features.features.read_features`. Sparse ones are memberships in
        sets.
    positions
        Where the control cells of each (context, time) lie in the latent, on average: ``{(context,
        time): vector}``. Those of training come first.
    n_trained
        How many of the positions are of training; None for all. They alone set the unit of distance
        and decide whether contexts can differ, so that a new one changes nothing for the others.
    top_doses
        For each part its largest dose; None where the data have no doses.
    metric
        Linear map of the positions, (F, F), in whose image distances between contexts are taken;
        None for the latent as it is. Where cells of one condition scatter by 1 in every direction,
        what tells contexts apart counts, however little it is of the whole variance.
    part_shares
        Share of the variance that a perturbation has of its own which is left where its effect was
        measured elsewhere; 1 for all others.
    """

    parts: tuple[str, ...]
    unit_doses: tuple[float, ...]
    features: Mapping[str, tuple[tuple[str, ...], FeatureMatrix]]
    positions: Mapping[Position, np.ndarray]
    n_trained: int | None = None
    top_doses: tuple[float, ...] | None = None
    metric: np.ndarray | None = None
    part_shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def _trained_keys(self) -> list[Position]:
        return list(self.positions)[: self.n_trained]

    @cached_property
    def trained_times(self) -> list[float]:
        """The distinct times of training, sorted."""
        return sorted({time for _, time in self._trained_keys if time is not None})

    @cached_property
    def dose_range(self) -> float:
        """Widest range of log doses of one part; 0 where every part has one dose."""
        tops = zip(self.unit_doses, self.top_doses or (), strict=False)
        return max((float(np.log2(1 + top / unit)) - 1 for unit, top in tops), default=0.0)

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that can differ in these data."""
        names = ["part", *(f"feature:{source}" for source in self.features), "interaction"]
        several_contexts = len({context for context, _ in self._trained_keys}) > 1
        several_times = len(self.trained_times) > 1
        wheres = ["context", "similar"] if several_contexts else []
        wheres += ["time"] if several_times else []
        wheres += ["context, time"] if several_contexts and several_times else []
        names += [f"{term} @ {where}" for where in wheres for term in ("common", "part")]
        if self.dose_range > 0:
            names.append("part @ dose")
        return tuple(names)

    def with_positions(self, positions: Mapping[Position, np.ndarray]) -> ConditionKernel:
        """The same kernel that knows further contexts."""
        new = {key: where for key, where in positions.items() if key not in self.positions}
        n_trained = len(self._trained_keys)
        return replace(self, positions={**self.positions, **new}, n_trained=n_trained)

    def amounts(self, conditions: Sequence[Condition], names: Sequence[str]) -> Tensor:
        """How much of each named perturbation each condition has, shape (C, len(names))."""
        column = {name: i for i, name in enumerate(names)}
        return torch.from_numpy(self._amounts(conditions, column).toarray())

    def _amounts(
        self, conditions: Sequence[Condition], column: Mapping[str, int]
    ) -> sparse.csr_matrix:
        entries = [
            (row, column[part], self._share(part, dose))
            for row, condition in enumerate(conditions)
            for part, dose in parts_and_doses(condition)
            if part in column
        ]
        return _matrix(entries, (len(conditions), len(column)))

    @cached_property
    def _range_of(self) -> dict[str, tuple[float, float]]:
        tops = self.top_doses or self.unit_doses
        return {p: (u, t) for p, u, t in zip(self.parts, self.unit_doses, tops, strict=True)}

    def _share(self, part: str, dose: float | None) -> float:
        if dose is None:
            return 1.0
        unit, _ = self._range_of.get(part, (1.0, 1.0))
        return float(np.log2(1 + dose / unit))

    def share_and_level(self, part: str, dose: float | None) -> tuple[float, float]:
        """How much a part at a dose counts, and its place on the log scale of doses within those
        of training, in units of the widest range."""
        low, high = self._range_of.get(part, (0.0, np.inf))
        inside = None if dose is None else min(max(dose, low), high)
        return self._share(part, dose), self._share(part, inside) / (self.dose_range or 1.0)

    def totals(self, conditions: Sequence[Condition]) -> np.ndarray:
        """How much of any perturbation each condition has, shape (C,)."""
        return np.array(
            [sum(self._share(*entry) for entry in parts_and_doses(c)) for c in conditions],
            dtype=np.float64,
        )

    def engagement(self, conditions: Sequence[Condition]) -> np.ndarray:
        """How much of an effect each condition may have: all of it, less at a low dose, (C,)."""
        found = np.zeros(len(conditions))
        for row, condition in enumerate(conditions):
            for part, dose in parts_and_doses(condition):
                _, top = self._range_of.get(part, (1.0, 1.0))
                full = dose is None or not self._share(part, top)
                found[row] += 1.0 if full else self._share(part, dose) / self._share(part, top)
        return found.clip(0, 1)

    def part_amounts(self, conditions: Sequence[Condition]) -> list[list[float]]:
        """The same for each part of each condition: 1, or less at a low dose."""
        return [
            [self.engagement([Condition((part,), None if dose is None else (dose,))])[0]
             for part, dose in parts_and_doses(condition)]
            for condition in conditions
        ]  # fmt: skip

    def design(self, a: Sequence[Condition], b: Sequence[Condition]) -> dict[str, Tensor]:
        """The parts of the covariance that do not depend on what is learned, most (A, B)."""
        every = {p: i for i, p in enumerate(sorted({p for c in (*a, *b) for p in c.parts}))}
        own_a, own_b = (self._amounts(c, every) for c in (a, b))
        total_a, total_b = (np.asarray(own.sum(axis=1)).ravel() for own in (own_a, own_b))
        left = sparse.diags(
            [self.part_shares.get(part, 1.0) for part in every], shape=(len(every),) * 2
        )
        part_AB = (own_a @ left @ own_b.T).toarray()
        found = {"common": np.outer(total_a, total_b), "part": part_AB}
        for source, (names, matrix) in self.features.items():
            likeness_PP = _likeness(every, names, matrix)
            found[f"feature:{source}"] = own_a @ (own_b @ likeness_PP).T
        grid = np.arange(len(a))[:, None], np.arange(len(b))[None]
        found |= self._besides_parts(a, b, grid)
        if "part @ dose" in self.terms:
            found |= self._doses(a, b)
        return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in found.items()}

    def _places(self, conditions: Sequence[Condition]) -> np.ndarray:
        """Which of the positions each condition is at."""
        row = {key: i for i, key in enumerate(self.positions)}
        return np.array([row[c.stratum] for c in conditions], dtype=int)

    @cached_property
    def _apart(self) -> np.ndarray:
        """Squared distances between positions, in units of the median."""
        where = np.array(list(self.positions.values()))
        known = torch.tensor(where if self.metric is None else where @ self.metric).double()
        apart = torch.cdist(known, known, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        n_trained = len(self._trained_keys)
        between = apart[:n_trained, :n_trained][~torch.eye(n_trained, dtype=torch.bool)]
        scale = between.median() if len(between) and between.median() > 0 else torch.tensor(1.0)
        return (apart / scale).numpy()

    def design_of_pairs(
        self, a: Sequence[Condition], b: Sequence[Condition], pairs: SharedParts
    ) -> dict[str, Tensor]:
        """What :meth:`design` gives, of E pairs that share perturbations alone, each (E,)."""
        found = {"part": pairs.amount_E}
        found |= self._besides_parts(a, b, (pairs.row_E, pairs.column_E))
        found |= {"dose pair": pairs.pair_T, "dose": pairs.amount_T, "dose gap": pairs.gap_T}
        return {name: torch.from_numpy(x) for name, x in found.items()}

    def _besides_parts(
        self,
        a: Sequence[Condition],
        b: Sequence[Condition],
        pairs: tuple[np.ndarray, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Whether combinations and contexts are the same, and how far contexts and times lie."""
        i, j = pairs
        set_a, set_b = _numbered([frozenset(c.parts) for c in a], [frozenset(c.parts) for c in b])
        several = np.array([len(c.parts) > 1 for c in a], dtype=bool)
        found = {"interaction": ((set_a[i] == set_b[j]) & several[i]).astype(np.float64)}
        wheres = {term.partition(" @ ")[2] for term in self.terms}
        if "context" in wheres:
            at_a, at_b = _numbered([c.context for c in a], [c.context for c in b])
            found["same"] = (at_a[i] == at_b[j]).astype(np.float64)
            found["distance"] = self._apart[self._places(a)[i], self._places(b)[j]]
        if "time" in wheres:
            found["time gap"] = (self._times(a)[i] - self._times(b)[j]) ** 2
        return found

    def _times(self, conditions: Sequence[Condition]) -> np.ndarray:
        """Times in units of the median distance, those outside training moved to its ends."""
        known = np.array(self.trained_times)
        gaps = np.abs(known[:, None] - known[None])[~np.eye(len(known), dtype=bool)]
        times = np.array([known[0] if c.time is None else c.time for c in conditions], dtype=float)
        return times.clip(known[0], known[-1]) / np.median(gaps)

    def _doses(self, a: Sequence[Condition], b: Sequence[Condition]) -> dict[str, np.ndarray]:
        """Shares by (part, log dose) of both sides, and squared distances between log doses."""
        levels: dict[tuple[str, float], int] = {}
        sides = []
        for conditions in (a, b):
            entries = []
            for row, condition in enumerate(conditions):
                for part, dose in parts_and_doses(condition):
                    share, place = self.share_and_level(part, dose)
                    entries.append((row, levels.setdefault((part, place), len(levels)), share))
            sides.append((entries, len(conditions)))
        left, right = (_matrix(entries, (n, len(levels))).toarray() for entries, n in sides)
        names = np.array([part for part, _ in levels], dtype=object)
        logs = np.array([place for _, place in levels])
        gap = (logs[:, None] - logs[None]) ** 2
        gap[names[:, None] != names[None]] = FAR
        return {"dose, left": left, "dose, right": right, "dose gap": gap}

    def covariance(self, design: Mapping[str, Tensor], weights: Tensor, lengths: Lengths) -> Tensor:
        """Sum the weighted terms, shape (A, B), or (E,) of pairs, which have no common terms.

        The design is that of :meth:`design` or :meth:`design_of_pairs`; each of :attr:`terms` has
        one positive weight.
        """
        factors: dict[str, Tensor] = {}
        if "same" in design:
            factors["context"] = design["same"]
            factors["similar"] = torch.exp(-design["distance"] / (2 * lengths.context))
        if "time gap" in design:
            factors["time"] = torch.exp(-design["time gap"] / (2 * lengths.time))
            if "same" in design:
                factors["context, time"] = design["same"] * factors["time"]
        total = torch.zeros_like(design["part"])
        for weight, term in zip(weights, self.terms, strict=True):
            base, _, where = term.partition(" @ ")
            if where == "dose":
                total = total + weight * _bent(design, lengths.dose)
            elif base in design:
                total = total + weight * (design[base] * factors[where] if where else design[base])
        return total


def _bent(design: Mapping[str, Tensor], length: Tensor) -> Tensor:
    """The same perturbations at close doses."""
    likeness = torch.exp(-design["dose gap"] / (2 * length))
    if "dose pair" in design:
        none = torch.zeros_like(design["part"])
        return none.index_add(0, design["dose pair"], design["dose"] * likeness)
    return design["dose, left"] @ likeness @ design["dose, right"].T


def _likeness(parts: Mapping[str, int], names: Sequence[str], matrix: FeatureMatrix) -> np.ndarray:
    """How alike a source of features takes perturbations to be, shape (P, P)."""
    row = {name: i for i, name in enumerate(names)}
    known = [i for part, i in parts.items() if part in row]
    likeness_PP = np.eye(len(parts))
    if known:
        rows = matrix[[row[part] for part in parts if part in row]]
        likeness_PP[np.ix_(known, known)] = (
            np.exp(-cdist(rows, rows, "sqeuclidean") / FEATURE_SCALE)
            if isinstance(rows, np.ndarray)
            else (rows.astype(np.float64) @ rows.astype(np.float64).T).toarray()
        )
    return likeness_PP


def parts_and_doses(condition: Condition) -> list[tuple[str, float | None]]:
    """The perturbations of a condition, each with its dose, None where there are no doses."""
    doses = condition.doses or (None,) * len(condition.parts)
    return list(zip(condition.parts, doses, strict=True))


def _numbered(a: Sequence[Hashable], b: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Equal numbers for equal names."""
    number = {name: i for i, name in enumerate(dict.fromkeys((*a, *b)))}
    left, right = (np.array([number[name] for name in names], dtype=int) for names in (a, b))
    return left, right


def _matrix(entries: list[tuple[int, int, float]], shape: tuple[int, int]) -> sparse.csr_matrix:
    rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
    data = np.array(values, dtype=np.float64)
    return sparse.csr_matrix((data, (np.array(rows, int), np.array(columns, int))), shape=shape)
