"""The states that cells of one context are in, whatever was done to them: a mixture of Gaussians.

Where no label tells cell types or phases apart, one Gaussian about the mean of a condition is a
poor place for new cells to start from: most of it lies between the states. So within each context
(and time) a cell of condition c is taken to be in one of a few states s,

    z | c, s ~ N(a_c + o_s, Sigma_s),    s ~ w_c,    a_c + sum_s w_cs o_s = mean of c,

with offsets and scatter shared by all conditions of the context, and a composition for each
condition, drawn to that of its context where cells are few: a perturbation may both move cells and
change how many are in which state. Contexts that are alike, such as replicates, may share offsets
and scatter, too, each about places of its own. How states are found, and whether they are shared,
is in :mod:`celldit.conditions.mixture`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from celldit.conditions.condition import Condition, ConditionTable
from celldit.conditions.latents import Latents, blocks, rows_of
from celldit.conditions.mixture import best_mixture, densities, shared_mixture, softmax
from celldit.conditions.population import Population
from celldit.conditions.strata import StratumKey
from celldit.effects.shifts import condition_means

FEWEST_CELLS, MOST_CELLS, MOST_OF_ALL = 200, 3_000, 16_000


@dataclass(frozen=True, eq=False)
class States:
    """The S states of all contexts of training."""

    strata: tuple[StratumKey, ...]  # of each state; those of one context are neighbours
    offsets_SF: np.ndarray  # where its cells lie, about the common place of their condition
    factors_SFF: np.ndarray  # Cholesky factor of their scatter
    cells_S: np.ndarray  # training cells in it
    # Share of its cells in each state, where there are several.
    shares: Mapping[Condition, np.ndarray]

    @classmethod
    def single(cls, population: Population, table: ConditionTable) -> States:
        """One state in each context: the Gaussian of the simple estimates."""
        places = tuple(dict.fromkeys(c.stratum for c in table.conditions))
        factors = np.stack([population.factor(place) for place in places])
        row_of = {place: x for x, place in enumerate(places)}
        cells = np.zeros(len(places))
        for condition, n_cells in zip(table.conditions, table.counts, strict=True):
            cells[row_of[condition.stratum]] += n_cells
        return cls(places, np.zeros((len(places), factors.shape[1])), factors, cells, {})

    @classmethod
    def fit(cls, z: Latents, table: ConditionTable, population: Population, seed: int) -> States:
        """Find the states of each context, from the latents (N, F) or (N, K, D) of N cells.

        The seed is of the cells looked at, of those left out, and of the first guess.
        """
        rng = np.random.default_rng([seed, 5])
        means_CF, _ = condition_means(z, table)
        places = tuple(dict.fromkeys(c.stratum for c in table.conditions))
        row_of = {place: x for x, place in enumerate(places)}
        place_C = np.array([row_of[c.stratum] for c in table.conditions])
        place_N = place_C[table.index]
        most = max(FEWEST_CELLS, min(MOST_CELLS, MOST_OF_ALL // len(places)))
        tried = []
        for x, place in enumerate(places):
            own = np.sort(rng.permutation(np.flatnonzero(place_N == x))[:most])
            condition_n = table.index[own]
            away_nF = rows_of(z, own) - means_CF[condition_n]
            tried.append(best_mixture(away_nF, condition_n, population.factor(place), rng))
        # With very many contexts all their cells together are too many to look at.
        few = len(places) * FEWEST_CELLS <= MOST_OF_ALL
        shared = shared_mixture(tried, rng) if few and len(places) > 1 else None
        parts = [(one.mixture, 0) for one in tried]
        if shared is not None:
            parts = [(shared, x) for x in range(len(places))]
        single = cls.single(population, table)
        shares = {
            c: parts[place_C[i]][0].share_of(i, parts[place_C[i]][1])
            for i, c in enumerate(table.conditions)
            if parts[place_C[i]][0].n_states > 1
        }
        cells = [n * m.usual_XM[x] for n, (m, x) in zip(single.cells_S, parts, strict=True)]
        return cls(
            tuple(place for place, (m, _) in zip(places, parts, strict=True) for _ in m.offsets_MF),
            np.concatenate([mixture.offsets_MF for mixture, _ in parts]),
            np.concatenate([mixture.factors_MFF for mixture, _ in parts]),
            np.concatenate(cells),
            shares,
        )

    def __len__(self) -> int:
        return len(self.strata)

    def options(self, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
        """The states that cells of a condition may be in, and how likely each is.

        A context that was not in training has the states of all contexts.
        """
        own_rows = [s for s, place in enumerate(self.strata) if place == condition.stratum]
        rows = np.array(own_rows or range(len(self)), dtype=np.int64)
        share = self.shares.get(condition)
        if share is None:
            share = self.cells_S[rows] / self.cells_S[rows].sum()
        return rows, share

    def centre(self, condition: Condition) -> np.ndarray:
        """Mean offset of a condition's cells, (F,): its mean less this is its common place."""
        rows, share = self.options(condition)
        return np.asarray(share @ self.offsets_SF[rows])

    def positions(
        self,
        conditions: Sequence[Condition],
        means_QF: np.ndarray,
        row_N: np.ndarray,
        state_N: np.ndarray,
    ) -> np.ndarray:
        """Means of N cells in the conditions `row_N` of Q and the states `state_N`, (N, F)."""
        places_QF = means_QF - np.stack([self.centre(condition) for condition in conditions])
        return np.asarray(places_QF[row_N] + self.offsets_SF[state_N])

    def likely(
        self, condition: Condition, mean_F: np.ndarray, z_nF: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """States of a condition with a given mean, and how likely each is for n cells, (n, M)."""
        rows, share = self.options(condition)
        if len(rows) == 1:
            return rows, np.ones((len(z_nF), 1))
        about_nF = z_nF - (mean_F - share @ self.offsets_SF[rows])
        log_nM = densities(about_nF, self.offsets_SF[rows], self.factors_SFF[rows])
        return rows, softmax(np.log(share) + log_nM)

    def assign(
        self, z: Latents, table: ConditionTable, population: Population, seed: int
    ) -> np.ndarray:
        """Draw the state of each of N cells by how likely it is, int64, shape (N,)."""
        rng = np.random.default_rng([seed, 6])
        mean_CF = population.estimate(table.conditions).position.astype(np.float64)
        state_N = np.empty(len(z), dtype=np.int64)
        for where, block in blocks(z):
            index, uniform = table.index[where], rng.random(len(block))
            found = np.empty(len(block), dtype=np.int64)
            order = np.argsort(index, kind="stable")
            for own in np.split(order, np.flatnonzero(np.diff(index[order])) + 1):
                c = index[own[0]]
                rows, likely_nM = self.likely(table.conditions[c], mean_CF[c], block[own])
                within = np.cumsum(likely_nM, axis=1) < uniform[own, None]
                found[own] = rows[within.sum(1).clip(max=len(rows) - 1)]
            state_N[where] = found
        return state_N

    def only_in(self, earlier: States) -> np.ndarray:
        """States of an earlier training whose contexts this one did not see."""
        own = set(self.strata)
        kept = [s for s, place in enumerate(earlier.strata) if place not in own]
        return np.array(kept, dtype=np.int64)

    def with_earlier(self, earlier: States) -> States:
        """Together with those of :meth:`only_in`, which come last."""
        own, kept = set(self.strata), self.only_in(earlier)
        shares = {c: w for c, w in earlier.shares.items() if c.stratum not in own}
        return States(
            self.strata + tuple(earlier.strata[s] for s in kept),
            np.concatenate([self.offsets_SF, earlier.offsets_SF[kept]]),
            np.concatenate([self.factors_SFF, earlier.factors_SFF[kept]]),
            np.concatenate([self.cells_S, earlier.cells_S[kept]]),
            {**shares, **self.shares},
        )

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {
            "surroundings": [list(place) for place in self.strata],
            "conditions": [condition.to_list() for condition in self.shares],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        return {
            "offsets_SF": self.offsets_SF,
            "factors_SFF": self.factors_SFF,
            "cells_S": self.cells_S,
            "shares": np.concatenate([np.zeros(0), *self.shares.values()]),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> States:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote."""
        places = tuple((context, time) for context, time in config["surroundings"])
        conditions = [Condition.from_list(entry) for entry in config["conditions"]]
        ends = np.cumsum([places.count(c.stratum) for c in conditions]).astype(np.int64)
        shares = np.split(arrays["shares"], ends[:-1]) if conditions else []
        own = {name: arrays[name] for name in ("offsets_SF", "factors_SFF", "cells_S")}
        return cls(places, shares=dict(zip(conditions, shares, strict=True)), **own)
