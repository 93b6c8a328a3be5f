"""The effect prior from training cells, and one prior of two trainings in the same latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from celldit.conditions.condition import Condition, ConditionTable
from celldit.conditions.latents import Latents, n_features
from celldit.conditions.strata import ENOUGH, Strata, StratumKey
from celldit.effects.contexts.baseline import Baselines, variance_between
from celldit.effects.contexts.fit_level import levelled
from celldit.effects.features.features import FeatureMatrix
from celldit.effects.few_cells import FewCells, variance_of_few
from celldit.effects.kernel import ConditionKernel
from celldit.effects.prior import EffectPrior
from celldit.effects.sharing import SMALL
from celldit.effects.shifts import condition_means, dose_ranges, rotation_of
from celldit.effects.tables.informed import informed, with_tables
from celldit.effects.tables.matching import MatchedTable
from celldit.effects.tuning import START_LENGTHS, tune

MIN_CELLS = 3
# Beside blocks of conditions each stratum's shared noise is a column, and time grows with the
# square of columns; of more strata it is taken for independent.
MOST_STRATA = 12


def fit_prior(
    z: Latents,
    table: ConditionTable,
    *,
    features: Mapping[str, tuple[tuple[str, ...], FeatureMatrix]] | None = None,
    tables: Mapping[str, MatchedTable] | None = None,
    loadings_FG: np.ndarray | None = None,
    seed: int = 0,
) -> EffectPrior:
    """Estimate the prior from training cells.

    Parameters
    ----------
    z
        Latent of N cells, shape (N, F) or (N, K, D) with F = K·D; an array or a file.
    table
        Their conditions.
    features
        Features of perturbations by source.
    tables, loadings_FG
        Effects measured elsewhere, by source, and the loadings of the decoder to log rates.
    seed
        For subsampling when there are very many cells or conditions.
    """

    def with_elsewhere(prior: EffectPrior) -> EffectPrior:
        if not tables or loadings_FG is None:
            return prior
        return informed(prior, tables, loadings_FG, seed)

    means, n_cells = condition_means(z, table)
    strata = Strata.of_table(table)
    references = strata.means(means)
    treated = [i for i, c in enumerate(table.conditions) if not c.is_control and n_cells[i]]
    # Where all have so few cells, they are all there is.
    enough = [i for i in treated if n_cells[i] >= MIN_CELLS] or treated
    conditions = tuple(table.conditions[i] for i in enough)
    n_dims = n_features(z)
    if not conditions:
        bare = _of_controls_alone(_kernel((), features, references), n_dims)
        if tables:
            nothing = bare.shifts, bare.noise
            bare = replace(bare, rotation=rotation_of(z, table, means, *nothing, seed))
        return with_elsewhere(bare)
    shifts = np.array([means[i] - references[table.conditions[i].stratum] for i in enough])
    of_controls = {key: 1 / stratum.n_cells for key, stratum in strata.of.items()}
    of_own = np.where(n_cells < MIN_CELLS, variance_of_few(n_cells.clip(1)), 1 / n_cells.clip(1))
    noise = np.array([of_own[i] + of_controls[table.conditions[i].stratum] for i in enough])
    rotation = rotation_of(z, table, means, shifts, noise, seed)
    rotated = shifts @ rotation
    every = Baselines()
    if borrowed := strata.borrowed():
        between_F = variance_between(means @ rotation, n_cells, table.conditions)
        if between_F is None:
            between_F = (rotated**2).mean(axis=0)
        every = Baselines(borrowed, of_controls, between_F)
        # There the noise of the controls is part of what all conditions of a stratum share.
        noise = np.array(
            [of_own[i] + (c.stratum not in borrowed) * of_controls[c.stratum]
             for i, c in zip(enough, conditions, strict=True)]
        )  # fmt: skip
    prior = _tuned(
        replace(_kernel(conditions, features, references), metric=rotation),
        conditions,
        (rotated, noise),
        every.only(conditions),
        {k: float(s.n_own) for k, s in strata.of.items() if s.n_own >= ENOUGH},
        _shared({k: v for k, v in of_controls.items() if k not in borrowed}, conditions),
        seed,
    )
    prior = with_elsewhere(levelled(_placed(prior), seed))
    few = sorted(set(treated) - set(enough))
    if not few:
        return prior
    small = [table.conditions[i] for i in few]
    noise_EF = every.noise_of(small, of_own[few], of_controls, n_dims)
    at = np.array([prior.kernel.positions[c.stratum] for c in small])
    return replace(prior, few=FewCells(tuple(small), (means[few] - at) @ rotation, noise_EF))


def joined(own: EffectPrior, earlier: EffectPrior, seed: int = 0) -> EffectPrior:
    """One prior of what two observed in the same latent.

    A condition that both observed is weighted by the precision of each; `own` describes it.
    Strengths are chosen again from all of them.
    """
    tables = list({t.name: t for t in (*earlier.elsewhere.tables, *own.elsewhere.tables)}.values())
    if not earlier.conditions:
        return with_tables(own, tables, seed)
    # Before this prior observed anything its dimensions were not turned.
    rotation = own.rotation if own.conditions else earlier.rotation
    turn_FF = np.linalg.inv(earlier.rotation) @ rotation
    turned = earlier.shifts @ turn_FF
    seen = {c: (turned[i], earlier.noise[i]) for i, c in enumerate(earlier.conditions)}
    for shift, variance, condition in zip(own.shifts, own.noise, own.conditions, strict=True):
        if condition in seen:
            other, other_variance = seen[condition]
            share = other_variance / (variance + other_variance)
            shift = share * shift + (1 - share) * other
            variance = share * variance
        seen[condition] = (shift, variance)
    conditions = tuple(seen)
    positions = {**earlier.kernel.positions, **own.kernel.positions}
    both = _tuned(
        replace(_kernel(conditions, own.kernel.features, positions), metric=rotation),
        conditions,
        (
            np.array([shift for shift, _ in seen.values()]),
            np.array([noise for _, noise in seen.values()]),
        ),
        own.baselines.beside(earlier.baselines, turn_FF).only(conditions),
        {**earlier.control_cells, **own.control_cells},
        _shared(_joined_noise(own.control_noise, earlier.control_noise), conditions),
        seed,
    )
    few = own.few_or_none.turned(np.linalg.inv(own.rotation) @ rotation)
    few = few.beside(earlier.few_or_none.turned(turn_FF)).without(conditions)
    both = with_tables(levelled(both, seed), tables, seed)
    return replace(both, few=few if few.conditions else None)


def _shared(
    of_controls: Mapping[StratumKey, float], conditions: Sequence[Condition]
) -> Mapping[StratumKey, float]:
    """The noise that conditions share; none where every stratum would cost too much."""
    many = len({c.stratum for c in conditions}) > MOST_STRATA and len(conditions) > SMALL
    return {} if many else of_controls


def _joined_noise(
    own: Mapping[StratumKey, float], earlier: Mapping[StratumKey, float]
) -> dict[StratumKey, float]:
    """Variance of mean controls, of both trainings where both had some."""
    both = {key: 1 / (1 / own[key] + 1 / earlier[key]) for key in own.keys() & earlier.keys()}
    return {**earlier, **own, **both}


def _kernel(
    conditions: Sequence[Condition],
    features: Mapping[str, tuple[tuple[str, ...], FeatureMatrix]] | None,
    positions: Mapping[StratumKey, np.ndarray],
) -> ConditionKernel:
    names = tuple(sorted({part for c in conditions for part in c.parts}))
    lowest, highest = dose_ranges(names, conditions)
    return ConditionKernel(names, lowest, features or {}, positions, top_doses=highest)


def _of_controls_alone(kernel: ConditionKernel, n_dims: int) -> EffectPrior:
    """A prior without observations, in the latent as it is."""
    empty, one, terms = np.zeros((0, n_dims)), np.ones(n_dims), np.ones(len(kernel.terms))
    return EffectPrior(
        kernel, (), empty, np.zeros(0), np.eye(n_dims), terms, START_LENGTHS, one, one
    )


def _tuned(
    kernel: ConditionKernel,
    conditions: tuple[Condition, ...],
    observed: tuple[np.ndarray, np.ndarray],
    baselines: Baselines,
    control_cells: Mapping[StratumKey, float],
    control_noise: Mapping[StratumKey, float],
    seed: int,
) -> EffectPrior:
    """The prior of conditions with the strengths that their shifts and noise ask for."""
    rotation = kernel.metric
    assert rotation is not None
    basis, open_columns = np.linalg.inv(rotation), baselines.columns(conditions)
    shifts, noise = observed
    picked = tune(kernel, conditions, shifts, noise, basis, seed, open_columns, control_noise)
    return EffectPrior(
        kernel,
        conditions,
        shifts,
        noise,
        rotation,
        *picked,
        control_cells=control_cells,
        baselines=baselines,
        control_noise=control_noise,
    )


def _placed(prior: EffectPrior) -> EffectPrior:
    """The same with controls of strata that have none where they most likely lie."""
    if not prior.baselines.borrowed:
        return prior
    nothing, none = np.zeros((1, len(prior.conditions))), np.zeros(1)
    basis, positions = np.linalg.inv(prior.rotation), dict(prior.kernel.positions)
    offsets = {}
    for at, key in enumerate(prior.baselines.borrowed):
        columns = [None] * at + [prior.baselines.sd(key)[None]]
        offsets[key] = (prior.observed.mean(nothing, none, columns) @ basis)[0]
        positions[key] = positions[key] + offsets[key]
    return replace(
        prior,
        kernel=replace(prior.kernel, positions=positions),
        baselines=replace(prior.baselines, offsets=offsets),
    )
