"""Where the cells of a condition lie in the latent, and how they scatter, by simple estimates.

This is the baseline that the flow starts from: the effect prior for the means, and the covariance
of each context for the scatter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from celldit.conditions.condition import Condition, ConditionTable
from celldit.conditions.latents import Latents, blocks
from celldit.conditions.strata import Strata, StratumKey
from celldit.effects.prior import EffectPrior
from celldit.effects.shifts import condition_means
from celldit.effects.storage import prior_arrays, prior_config, prior_from


@dataclass(frozen=True, eq=False)
class Estimate:
    """What is known of Q conditions before the flow; all float32."""

    effect: np.ndarray  # mean shift against the controls, shape (Q, F)
    position: np.ndarray  # mean of the condition's cells, shape (Q, F)
    # Root mean square over latent directions of the effect's standard deviation, in units of the
    # spread between cells, shape (Q,).
    sd: np.ndarray


@dataclass(frozen=True, eq=False)
class Population:
    """Simple estimates of mean and scatter for any condition."""

    prior: EffectPrior  # effects of the perturbations
    references: Mapping[StratumKey, np.ndarray]  # mean latent of the controls
    # Cholesky factor of the scatter within conditions; under None that of all cells.
    factors: Mapping[StratumKey | None, np.ndarray]

    @classmethod
    def fit(cls, z: Latents, table: ConditionTable, prior: EffectPrior) -> Population:
        """Estimate from the latent of N cells, (N, F) or (N, K, D), a block at a time."""
        means_CF, _ = condition_means(z, table)
        strata = Strata.of_table(table)
        references = strata.means(means_CF)
        for key in strata.borrowed():
            references[key] = references[key] + prior.baselines.offsets.get(key, 0.0)
        where = [c.stratum for c in table.conditions]
        place = {key: i for i, key in enumerate(references)}
        stratum_C = np.array([place[key] for key in where])
        scatter_XFF = _scatter(z, table, means_CF, stratum_C)
        n_dims = means_CF.shape[1]
        # A condition with a single cell has no residual; degrees of freedom, not cells, count.
        degrees = max(len(z) - len(table), 1)
        pooled = scatter_XFF.sum(0) / degrees + 1e-6 * np.eye(n_dims)
        factors: dict[StratumKey | None, np.ndarray] = {None: np.linalg.cholesky(pooled)}
        for key, i in place.items() if len(references) > 1 else ():
            freedom = table.counts[stratum_C == i].sum() - (stratum_C == i).sum()
            # Shrink to the pooled scatter as if that had been seen in 2 F cells.
            scatter = scatter_XFF[i] + 2 * n_dims * pooled
            factors[key] = np.linalg.cholesky(scatter / (max(freedom, 0) + 2 * n_dims))
        return cls(prior, references, factors)

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts of training, in a fixed order."""
        return tuple(sorted({context for context, _ in self.references}))

    def offset(self, table: ConditionTable) -> np.ndarray | None:
        """From the cells that stand in as controls of C conditions to where their own would lie.

        A cell of another context starts there when it is paired with cells of a condition whose
        stratum has no controls (:mod:`celldit.effects.contexts.baseline`). Float32, shape (C, F);
        None where every stratum has controls of its own.
        """
        offsets, borrowed = self.prior.baselines.offsets, Strata.of_table(table).borrowed()
        if not borrowed.keys() & offsets.keys():
            return None
        zero_F = np.zeros(len(self.factors[None]))
        keys = [c.stratum if not c.is_control else None for c in table.conditions]
        moved = [offsets.get(k, zero_F) if k in borrowed else zero_F for k in keys]
        return np.array(moved, dtype=np.float32)

    def without(self, conditions: Sequence[Condition]) -> Population:
        """The same had these conditions' effects not been observed."""
        return replace(self, prior=self.prior.without(conditions))

    def estimate(
        self,
        conditions: Sequence[Condition],
        references: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> Estimate:
        """Mean shift, mean and doubt of any Q conditions.

        References are mean latents of the controls of contexts that were not in training.
        """
        known = {**(references or {}), **self.references}
        effects = self.prior.estimate(conditions, references)
        position = np.array([known[c.stratum] for c in conditions]) + effects.mean
        return Estimate(
            effects.mean.astype(np.float32),
            position.astype(np.float32),
            effects.sd.astype(np.float32),
        )

    def factor(self, stratum: StratumKey) -> np.ndarray:
        """Cholesky factor of the scatter in a context, that of all cells where it is new."""
        return self.factors.get(stratum, self.factors[None])

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        keys = [list(key) for key in self.factors if key is not None]
        return {
            "prior": prior_config(self.prior),
            "references": [list(key) for key in self.references],
            "factors": keys,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        own = [f for key, f in self.factors.items() if key is not None]
        n_features = len(self.factors[None])
        return {
            **{f"prior.{name}": array for name, array in prior_arrays(self.prior).items()},
            "references": np.array(list(self.references.values())),
            "factor": self.factors[None],
            "factors": np.array(own).reshape(len(own), n_features, n_features),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Population:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote."""
        own = {k.removeprefix("prior."): a for k, a in arrays.items() if k.startswith("prior.")}
        keys = [(context, time) for context, time in config["references"]]
        factors: dict[StratumKey | None, np.ndarray] = {None: arrays["factor"]}
        for (context, time), factor in zip(config["factors"], arrays["factors"], strict=True):
            factors[context, time] = factor
        return cls(
            prior_from(config["prior"], own),
            dict(zip(keys, arrays["references"], strict=True)),
            factors,
        )


def _scatter(
    z: Latents, table: ConditionTable, means_CF: np.ndarray, stratum_C: np.ndarray
) -> np.ndarray:
    """Scatter within conditions by stratum, (X, F, F)."""
    n_dims, n_places = means_CF.shape[1], int(stratum_C.max()) + 1
    scatter_XFF = np.zeros((n_places, n_dims, n_dims))
    for rows, block in blocks(z):
        index = table.index[rows]
        residual, place = block - means_CF[index], stratum_C[index]
        for x in np.unique(place):
            own = residual[place == x]
            scatter_XFF[x] += own.T @ own
    return scatter_XFF
