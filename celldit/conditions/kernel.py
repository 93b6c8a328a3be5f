"""Which conditions resemble each other: the covariance of their effects, as a sum of named terms.

Every term says one sentence about effects, and its learned weight says how true it is here:

========================  =====================================================================
``common``                all perturbations share one effect (the mean shift)
``part``                  conditions share the effects of the perturbations they have in common,
                          so combinations add up
``feature:NAME``          perturbations with similar features have similar effects
``interaction``           a combination has an effect of its own beyond the sum, in all contexts
``... @ context``         the same, but only within one context (partial pooling over contexts)
``... @ similar``         the same, the more so the more similar the control cells of the contexts
========================  =====================================================================

Doses scale a part's share by log(1 + dose / d₀), d₀ the smallest positive dose of that part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.condition import Condition
from celldit.errors import InputError


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
        Feature matrices by source, rows of unit length, indexed by perturbation:
        ``{source: (names, matrix)}``.
    positions
        Where the control cells of each (context, time) lie in the latent, on average:
        ``{(context, time): vector}``. Those of training come first.
    n_trained
        How many of the positions are of training; None for all. They alone set the unit of distance
        and decide whether contexts can differ, so that a new one changes nothing for the others.
    """

    parts: tuple[str, ...]
    unit_doses: tuple[float, ...]
    features: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
    positions: Mapping[tuple[str, float | None], np.ndarray]
    n_trained: int | None = None

    @property
    def trained_positions(self) -> list[np.ndarray]:
        """Positions of the contexts of training."""
        return list(self.positions.values())[: self.n_trained]

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that can differ in these data."""
        base = ["common", "part", *(f"feature:{source}" for source in self.features)]
        names = [*base, "interaction"]
        if len(self.trained_positions) > 1:
            names += [f"{term} @ {where}" for where in ("context", "similar") for term in base[:2]]
        return tuple(names)

    def with_positions(
        self, positions: Mapping[tuple[str, float | None], np.ndarray]
    ) -> ConditionKernel:
        """The same kernel that knows further contexts."""
        merged = {
            **self.positions,
            **{k: v for k, v in positions.items() if k not in self.positions},
        }
        n_trained = len(self.trained_positions)
        return ConditionKernel(self.parts, self.unit_doses, self.features, merged, n_trained)

    def amounts(self, conditions: Sequence[Condition], names: Sequence[str]) -> Tensor:
        """How much of each named perturbation each condition has, shape (C, len(names))."""
        column = {name: i for i, name in enumerate(names)}
        unit = dict(zip(self.parts, self.unit_doses, strict=True))
        amounts = torch.zeros(len(conditions), len(names), dtype=torch.float64)
        for row, condition in enumerate(conditions):
            doses = condition.doses or (None,) * len(condition.parts)
            for part, dose in zip(condition.parts, doses, strict=True):
                if part in column:
                    share = 1.0 if dose is None else float(np.log2(1 + dose / unit.get(part, 1.0)))
                    amounts[row, column[part]] = share
        return amounts

    def distances(self, a: Sequence[Condition], b: Sequence[Condition]) -> Tensor:
        """Squared distance between the controls of two conditions, in units of the median."""
        known = torch.tensor(np.array(list(self.positions.values())), dtype=torch.float64)
        row = {key: i for i, key in enumerate(self.positions)}
        apart = torch.cdist(known, known, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        n_trained = len(self.trained_positions)
        between = apart[:n_trained, :n_trained][~torch.eye(n_trained, dtype=torch.bool)]
        scale = between.median() if len(between) and between.median() > 0 else torch.tensor(1.0)
        rows_a = torch.tensor([row[c.surroundings] for c in a])
        rows_b = torch.tensor([row[c.surroundings] for c in b])
        return apart[rows_a][:, rows_b] / scale

    def design(self, a: Sequence[Condition], b: Sequence[Condition]) -> dict[str, Tensor]:
        """The parts of the covariance that do not depend on what is learned, each (A, B)."""
        every = sorted({part for c in (*a, *b) for part in c.parts})
        own_a, own_b = (self.amounts(c, every) for c in (a, b))
        common = own_a.sum(1)[:, None] * own_b.sum(1)[None]
        design = {"common": common, "part": own_a @ own_b.T}
        for source, (names, matrix) in self.features.items():
            missing = [p for p in every if p not in set(names)]
            if missing:
                raise InputError(
                    f"The features {source!r} have no row for {', '.join(missing[:5])}; add them "
                    "(zeros are not filled in), or leave these perturbations out."
                )
            rows = torch.tensor(matrix, dtype=torch.float64)
            features_a, features_b = (self.amounts(c, names) @ rows for c in (a, b))
            design[f"feature:{source}"] = features_a @ features_b.T
        sets_a, sets_b = ([frozenset(c.parts) for c in cs] for cs in (a, b))
        equal = [[float(x == y and len(x) > 1) for y in sets_b] for x in sets_a]
        design["interaction"] = torch.tensor(equal, dtype=torch.float64).view(len(a), len(b))
        if len(self.trained_positions) > 1:
            where_a, where_b = ([c.surroundings for c in cs] for cs in (a, b))
            same = [[float(x == y) for y in where_b] for x in where_a]
            design["same"] = torch.tensor(same, dtype=torch.float64).view(len(a), len(b))
            design["distance"] = self.distances(a, b)
        return design

    def covariance(self, design: Mapping[str, Tensor], weights: Tensor, reach: Tensor) -> Tensor:
        """Sum the weighted terms, shape (A, B).

        Parameters
        ----------
        design
            From :meth:`design`.
        weights
            One positive weight for each of :attr:`terms`.
        reach
            Squared distance, in units of the median, at which similarity between contexts has
            fallen to exp(-1/2).
        """
        total = torch.zeros_like(design["common"])
        for weight, term in zip(weights, self.terms, strict=True):
            base, _, where = term.partition(" @ ")
            value = design[base]
            if where == "context":
                value = value * design["same"]
            elif where == "similar":
                value = value * torch.exp(-design["distance"] / (2 * reach))
            total = total + weight * value
        return total
