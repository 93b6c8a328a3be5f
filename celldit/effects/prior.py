"""The best simple estimate of what each condition does, with its uncertainty.

The mean latent shift y_c of a condition c against its own controls is observed with noise of known
size (within-condition covariance over the number of cells). A Gaussian process over conditions,

    y_c = f(c) + ε_c,   f_k ~ GP(0, λ_k · kernel),   ε_ck ~ N(0, 1/n_c + 1/n_control),

the second part of ε_c being the same for all conditions that have these controls
(:mod:`celldit.effects.shared_noise`). It is the Bayesian form of the weighted ridge regression on
the multi-hot perturbation design: its covariance is a sum of terms for additivity, pooling over
contexts and features (see :mod:`celldit.effects.kernel`), whose weights cross-validation picks. The
latent is rotated first so that noise is white and the dimensions in which conditions differ most
come first; each dimension k then has its own signal-to-noise ratio λ_k, and its own variance of the
effect that all perturbations share: most have none of it, and those that do have much. Where
contexts start at different levels, f has a slope on the level of their controls, if leaving
contexts out shows one (:mod:`celldit.effects.contexts.level`). What a context without controls of
its own starts from is one more unknown (:mod:`celldit.effects.contexts.baseline`).

Two things come in closed form: the posterior standard deviation, and the estimate of a condition
*without its own cells* (leave-one-out; Rasmussen & Williams 2006, eq. 5.12), which cross-fitting
needs. Beside the additive ridge on raw expression: ``docs/results/prior.csv``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from celldit.conditions.condition import Condition
from celldit.conditions.strata import StratumKey
from celldit.effects.contexts.baseline import Baselines
from celldit.effects.contexts.level import Level
from celldit.effects.few_cells import FewCells
from celldit.effects.kernel import ConditionKernel
from celldit.effects.posterior import Observed
from celldit.effects.shared_noise import SharedNoise
from celldit.effects.sharing import SharingKernel
from celldit.effects.tables.elsewhere import Elsewhere, TableEffects

BLOCK = 64

Moments: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Mean and variance of rotated effects, each (Q, F)."""


@dataclass(frozen=True, eq=False)
class EffectEstimate:
    """Effects of Q conditions in a latent of F dimensions.

    Attributes
    ----------
    mean
        Posterior mean shift, float64, shape (Q, F).
    variance
        Posterior variance along the rows of `basis`, shape (Q, F).
    basis
        The independent directions in the latent, shape (F, F).
    """

    mean: np.ndarray
    variance: np.ndarray
    basis: np.ndarray

    @property
    def sd(self) -> np.ndarray:
        """Root mean square of the standard deviations, in units of the spread between cells."""
        return np.sqrt(self.variance.mean(axis=1))

    def project(self, loadings_FG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation after a linear map, each of shape (Q, G)."""
        directions_FG = self.basis @ loadings_FG
        return self.mean @ loadings_FG, np.sqrt(self.variance @ directions_FG**2)


@dataclass(frozen=True, eq=False)
class EffectPrior:
    """Posterior over the effects of all conditions, given the mean shifts of the trained ones.

    Use :func:`celldit.effects.fit_prior.fit_prior`, :meth:`estimate`, :meth:`leave_one_out` and
    :meth:`without`.

    Attributes
    ----------
    kernel
        Covariance between conditions.
    conditions
        The C observed (perturbed) conditions.
    shifts
        Their observed shifts in rotated coordinates, shape (C, F).
    noise
        Variance of these, shape (C,).
    rotation
        Latent to rotated coordinates, shape (F, F).
    weights, lengths, signal, common
        What cross-validation picked (:mod:`celldit.effects.tuning`): one weight per kernel term,
        how far similarity between contexts, times and doses reaches, and for each rotated dimension
        λ and the variance of the effect that all perturbations share.
    unseen_weights, unseen_common
        The weights and the variance that estimates of perturbations never seen rest on; None for
        the same.
    level
        The slope on the level of the controls.
    control_cells
        Control cells of the strata that have enough of their own.
    baselines
        The strata whose shifts are measured from controls of other contexts.
    control_noise
        Variance of the mean controls of all other strata; empty in models of earlier versions, for
        which all noise is independent.
    from_measured
        Whether estimates are of shifts from the controls that were measured, or from where these
        truly lie (:attr:`of_effects`).
    few
        Conditions of fewer than three cells, which are not among the observed ones; None for none.
    elsewhere
        Effects that others measured.
    """

    kernel: ConditionKernel
    conditions: tuple[Condition, ...]
    shifts: np.ndarray
    noise: np.ndarray
    rotation: np.ndarray
    weights: np.ndarray
    lengths: tuple[float, float, float]
    signal: np.ndarray
    common: np.ndarray
    unseen_weights: np.ndarray | None = None
    unseen_common: np.ndarray | None = None
    level: Level = field(default_factory=Level)
    control_cells: Mapping[StratumKey, float] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=Baselines)
    control_noise: Mapping[StratumKey, float] = field(default_factory=dict)
    from_measured: bool = True
    few: FewCells | None = None
    elsewhere: Elsewhere = field(default_factory=Elsewhere)

    @property
    def sampling_noise(self) -> dict[Condition, float]:
        """Variance of each condition's mean against its controls, where cells vary by one."""
        found = dict(zip(self.conditions, self.noise.tolist(), strict=True))
        if self.few is not None:
            found |= dict(zip(self.few.conditions, self.few.noise_EF.mean(1).tolist(), strict=True))
        return found

    def rows(self, keep: np.ndarray | Sequence[int]) -> EffectPrior:
        """The same with some of its observations."""
        return replace(
            self,
            conditions=tuple(self.conditions[i] for i in keep),
            shifts=self.shifts[keep],
            noise=self.noise[keep],
            baselines=self.baselines.only([self.conditions[i] for i in keep]),
        )

    def _levels(self, conditions: Sequence[Condition]) -> np.ndarray:
        """Level of each one's controls over the mean, times how much it may do, rotated, (Q, F)."""
        positions, centre_F = self.kernel.positions, self.level.centre_F
        above_QF = np.array([positions.get(c.stratum, centre_F) for c in conditions])
        amounts_Q = self.kernel.engagement(conditions)
        levels_QF: np.ndarray = amounts_Q[:, None] * ((above_QF - centre_F) @ self.rotation)
        return levels_QF

    def level_means(self, conditions: Sequence[Condition]) -> np.ndarray:
        """What the level of their controls adds to effects, in rotated coordinates, (Q, F)."""
        if self.level.slope == 0 or not conditions:
            return np.zeros((len(conditions), len(self.rotation)))
        return -self.level.slope * self._levels(conditions)

    def table_means(self, table: TableEffects, conditions: Sequence[Condition]) -> np.ndarray:
        """What a table says of conditions, in rotated coordinates, (Q, F)."""
        found_QF = table.means(conditions, self.kernel.part_amounts(conditions))
        return np.asarray(found_QF @ self.rotation)

    def means(self, conditions: Sequence[Condition]) -> np.ndarray:
        """What is expected of conditions beside the Gaussian process, rotated, (Q, F)."""
        found_QF = self.level_means(conditions)
        for table in self.elsewhere.used if conditions else ():
            found_QF = found_QF + table.amplitude * self.table_means(table, conditions)
        return found_QF

    def columns(self, conditions: Sequence[Condition]) -> list[np.ndarray]:
        """How the doubt of slope and amplitudes enters effects: columns of shape (Q, F)."""
        if not conditions:
            return []
        levels = [self.level.sd * self._levels(conditions)] if self.level.sd else []
        doubtful = [table for table in self.elsewhere.used if table.sd]
        return levels + [t.sd * self.table_means(t, conditions) for t in doubtful]

    @cached_property
    def sharing(self) -> SharingKernel:
        """The kernel with its weights, between any conditions and the observed ones."""
        return SharingKernel(self.kernel, self.weights, self.lengths, self.conditions)

    @cached_property
    def kernel_CC(self) -> np.ndarray:
        """Prior covariance of observed effects, up to λ and without the effect that all share."""
        return self.sharing.dense(self.conditions, self.conditions)

    def covariance_of_shifts(self, dimension: int) -> np.ndarray:
        """Covariance of the observed shifts in one rotated dimension, noise included, (C, C)."""
        totals_C, k = self.kernel.totals(self.conditions), dimension
        found_CC = self.signal[k] * self.kernel_CC + self.shared.matrix(self.noise)
        found_CC += self.common[k] * np.outer(totals_C, totals_C)
        columns = self.columns(self.conditions), self.baselines.columns(self.conditions)
        for column_CF in (*columns[0], *columns[1]):
            found_CC += np.outer(column_CF[:, k], column_CF[:, k])
        return found_CC

    def own_variances(self) -> np.ndarray:
        """Prior variance of observed effects that is the perturbations' own, up to λ, (C,)."""
        is_own = [t.partition(" @ ")[0] in ("part", "interaction") for t in self.kernel.terms]
        own = replace(self, weights=self.weights * np.array(is_own))
        return own._variances(self.conditions)

    @cached_property
    def without_tables(self) -> EffectPrior:
        """The same prior for what tables say nothing of."""
        if not self.kernel.part_shares:
            return self
        return replace(self, kernel=replace(self.kernel, part_shares={}), elsewhere=Elsewhere())

    def knowing(self, positions: Mapping[StratumKey, np.ndarray] | None) -> EffectPrior:
        """The same prior that knows further contexts."""
        return replace(self, kernel=self.kernel.with_positions(positions)) if positions else self

    def _variances(self, conditions: Sequence[Condition]) -> np.ndarray:
        """Prior variance of Q conditions, up to λ, shape (Q,)."""
        blocks = [conditions[i : i + BLOCK] for i in range(0, len(conditions), BLOCK)]
        return np.concatenate([np.diag(self.sharing.dense(block, block)) for block in blocks])

    @cached_property
    def observed(self) -> Observed:
        """What the observed shifts say of others, in rotated dimensions."""
        return self.sharing.observed(
            self.shifts - self.means(self.conditions),
            self.noise,
            self.signal,
            self.common,
            [*self.columns(self.conditions), *self.baselines.columns(self.conditions)],
            self.shared,
        )

    @cached_property
    def shared(self) -> SharedNoise:
        """What of their noise observed shifts share."""
        return SharedNoise.of(self.conditions, self.control_noise)

    @cached_property
    def of_effects(self) -> EffectPrior:
        """The same prior, estimating effects rather than shifts from measured controls.

        Cells are compared with the measured controls, and predicted beside them; what a
        perturbation does has no part in what these few cells happen to be off by.
        """
        if not self.from_measured:
            return self
        other = replace(self, from_measured=False)
        # Nothing that was observed is another, so nothing is decomposed again.
        other.__dict__["observed"] = self.observed
        unseen = self.of_unseen
        other.__dict__["of_unseen"] = other if unseen is self else unseen.of_effects
        return other

    def estimate(
        self,
        conditions: Sequence[Condition],
        positions: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> EffectEstimate:
        """Posterior effect of any conditions, observed or not.

        A combination of what was seen and what was not is the sum of both, each estimated with the
        strengths for its kind.

        Parameters
        ----------
        conditions
            Q conditions. A control has no effect.
        positions
            Mean latent of the controls of contexts that were not in training.
        """

        def ask(prior: EffectPrior, queries: Sequence[Condition], _: np.ndarray) -> Moments:
            from_baselines = prior.knowing(positions)
            sharing = prior.sharing.knowing(from_baselines.kernel)
            return prior.observed.predict(
                sharing.own(queries),
                self.kernel.totals(queries),
                from_baselines._variances(queries),
                from_baselines.columns(queries),
                sharing.columns(queries),
            )

        mean, variance = self._by_novelty(conditions, map(self._new_parts, conditions), ask)
        mean = mean + self.knowing(positions).means(conditions)
        noise = self._shared_noise(conditions, map(self._new_parts, conditions))
        if self.few is not None:
            mean, variance = self.few.updated(conditions, mean + noise, variance)
            mean = mean - noise
        return self._in_latent(mean + self.from_measured * noise, variance)

    def leave_one_out(self) -> EffectEstimate:
        """The effect of each observed condition, estimated without its own cells: C estimates."""
        new = [self._new_parts(c, c) for c in self.conditions]
        sizes = [(len(parts), len(c.parts)) for c, parts in zip(self.conditions, new, strict=True)]
        whole = np.array([n_new in (0, n) for n_new, n in sizes], dtype=bool)
        is_new = np.array([bool(parts) for parts in new], dtype=bool)
        mean, variance = np.zeros((2, len(new), len(self.signal)))
        for prior, rows in ((self, whole & ~is_new), (self.of_unseen, whole & is_new)):
            if rows.any():
                all_means, all_variances = prior.observed.leave_one_out()
                mean[rows], variance[rows] = all_means[rows], all_variances[rows]
        # An effect has no part in what is not known of where its stratum starts.
        is_open = [c.stratum in self.baselines.borrowed for c in self.conditions]
        mixed = np.flatnonzero(~whole | np.array(is_open, dtype=bool))
        if len(mixed):
            mean[mixed], variance[mixed] = self._without([self.conditions[i] for i in mixed], mixed)
        noise = self._shared_noise(self.conditions, new, np.arange(len(new)))
        mean = mean + self.means(self.conditions) + self.from_measured * noise
        return self._in_latent(mean, variance)

    def estimate_without(self, conditions: Sequence[Condition], rows: np.ndarray) -> EffectEstimate:
        """The effect of each of Q conditions had one observed condition, its own, been left out.

        `rows` says which observed condition is left out for each, shape (Q,); all are in trained
        strata.
        """
        mean, variance = self._without(conditions, rows)
        new = map(self._new_parts, conditions, [self.conditions[row] for row in rows])
        noise = self._shared_noise(conditions, new, rows)
        mean = mean + self.means(conditions) + self.from_measured * noise
        return self._in_latent(mean, variance)

    def _without(self, conditions: Sequence[Condition], rows: np.ndarray) -> Moments:
        def ask(prior: EffectPrior, queries: Sequence[Condition], which: np.ndarray) -> Moments:
            return prior.observed.predict_without(
                prior.sharing.own(queries),
                self.kernel.totals(queries),
                prior._variances(queries),
                rows[which],
                prior.columns(queries),
                prior.sharing.columns(queries),
            )

        left_out = [self.conditions[row] for row in rows]
        return self._by_novelty(conditions, map(self._new_parts, conditions, left_out), ask)

    def _shared_noise(
        self,
        conditions: Sequence[Condition],
        new: Iterable[set[str]],
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """What measured controls are off by as far as shifts tell, rotated, (Q, F).

        Of each condition, where that of its row was left out; `new` are its parts never seen.
        """
        found_QF = np.zeros((len(conditions), len(self.signal)))
        if not self.control_noise or not self.conditions:
            return found_QF
        all_new = [len(names) == len(c.parts) for c, names in zip(conditions, new, strict=True)]
        for prior, is_new in ((self, False), (self.of_unseen, True)):
            at = np.flatnonzero(np.array(all_new, dtype=bool) == is_new)
            if len(at):
                observed = prior.observed
                groups = prior.shared.groups_of([conditions[q] for q in at.tolist()])
                found_QF[at] = observed.noise(groups, None if rows is None else rows[at])
        # To whom next to nothing was done is next to the controls.
        return found_QF * self.kernel.engagement(conditions)[:, None]

    @cached_property
    def _uses(self) -> Counter[str]:
        """In how many observed conditions each perturbation is."""
        return Counter(part for c in self.conditions for part in set(c.parts))

    def _new_parts(self, condition: Condition, left_out: Condition | None = None) -> set[str]:
        """The perturbations of a condition that were seen in no other than the one left out."""
        gone = () if left_out is None else left_out.parts
        return {part for part in condition.parts if self._uses[part] <= (part in gone)}

    @cached_property
    def of_unseen(self) -> EffectPrior:
        """The same prior with the strengths for perturbations never seen."""
        if self.unseen_weights is None or self.unseen_common is None:
            return self
        weights, common = self.unseen_weights, self.unseen_common
        return replace(
            self, weights=weights, common=common, unseen_weights=None, unseen_common=None
        )

    @property
    def uninformative(self) -> tuple[str, ...]:
        """Sources of features that estimates of perturbations never seen do not rest on."""
        weight = dict(zip(self.kernel.terms, self.of_unseen.weights, strict=True))
        return tuple(name for name in self.kernel.features if weight[f"feature:{name}"] == 0)

    def _by_novelty(
        self,
        conditions: Sequence[Condition],
        new: Iterable[set[str]],
        ask: Callable[[EffectPrior, Sequence[Condition], np.ndarray], Moments],
    ) -> Moments:
        """Ask the one prior for what was seen of each condition, the other for what was not.

        Where a condition has some of both, its effect is the sum, and so is its variance.
        """
        pieces: list[tuple[Condition, int, bool]] = []
        for row, (condition, names) in enumerate(zip(conditions, new, strict=True)):
            if len(names) < len(condition.parts) or condition.is_control:
                pieces.append((condition.only(set(condition.parts) - names), row, False))
            if names:
                pieces.append((condition.only(names), row, True))
        mean, variance = np.zeros((2, len(conditions), len(self.signal)))
        for prior, kind in ((self, False), (self.of_unseen, True)):
            chosen = [(piece, row) for piece, row, is_new in pieces if is_new == kind]
            if chosen and (self.conditions or self.elsewhere.used):
                rows = np.array([row for _, row in chosen])
                found = ask(prior, [piece for piece, _ in chosen], rows)
                mean[rows] += found[0]
                variance[rows] += found[1]
        return mean, variance

    def _in_latent(self, mean: np.ndarray, variance: np.ndarray) -> EffectEstimate:
        basis = np.linalg.inv(self.rotation)
        return EffectEstimate(mean @ basis, variance.clip(min=0), basis)

    def without(self, conditions: Sequence[Condition]) -> EffectPrior:
        """The same prior had these conditions not been observed (strengths kept)."""
        left_out = set(conditions)
        reduced = self.rows([i for i, c in enumerate(self.conditions) if c not in left_out])
        return replace(reduced, few=self.few and self.few.without(conditions))

    @property
    def few_or_none(self) -> FewCells:
        """Conditions of fewer than three cells, also where there are none."""
        return FewCells.none(len(self.rotation)) if self.few is None else self.few
