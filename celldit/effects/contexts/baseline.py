"""Where a stratum starts that has no controls, or next to none.

Its effects are measured from the controls of other contexts (:mod:`celldit.conditions.strata`), and
so they hold the difference between the contexts. That difference b is one unknown vector for all
conditions of the stratum, with a variance of its own in each dimension,

    shift of condition c = effect of c + (share of controls that are not its own) b + noise,

as is the noise of the few or foreign controls; and perturbations that other strata have, too, tell
the one from the other. Where they do not, the doubt stays. How much strata differ comes from all of
them: cell means are fitted by the sum of what was done and where, and the variance of the second
part, less that of its noise, is that of b.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from celldit.conditions.condition import Condition
from celldit.conditions.strata import ENOUGH, StratumKey, names_of
from celldit.errors import examples, outside

ROUNDS = 30
# A dimension's own variance is drawn towards that of all as if so many more strata had shown it.
PRIOR_STRATA = 2.0
# What strata differ by is never taken for less than this share of the noise it is seen through.
LEAST_NOISE = 0.1


@dataclass(frozen=True, eq=False)
class Baselines:
    """Strata whose baseline is not measured.

    Attributes
    ----------
    borrowed
        Share of each one's controls that are of other contexts.
    noise
        Variance of the mean of all its controls.
    between_F
        Variance of b in each rotated dimension; empty where every stratum is measured.
    offsets
        From the mean of these controls to where the stratum's own most likely lie, in the latent,
        each of shape (F,).
    """

    borrowed: Mapping[StratumKey, float] = field(default_factory=dict)
    noise: Mapping[StratumKey, float] = field(default_factory=dict)
    between_F: np.ndarray = field(default_factory=lambda: np.zeros(0))
    offsets: Mapping[StratumKey, np.ndarray] = field(default_factory=dict)

    def columns(self, conditions: Sequence[Condition]) -> list[np.ndarray]:
        """How the baseline of each of these strata enters the shifts of C conditions, (C, F)."""
        return [
            np.outer([c.stratum == key for c in conditions], self.sd(key)) for key in self.borrowed
        ]

    def sd(self, key: StratumKey) -> np.ndarray:
        """How far the mean of the controls may be from where the stratum starts, shape (F,)."""
        return np.sqrt(self.borrowed[key] ** 2 * self.between_F + self.noise[key])

    def noise_of(
        self,
        conditions: Sequence[Condition],
        own_C: np.ndarray,
        of_controls: Mapping[StratumKey, float],
        n_dims: int,
    ) -> np.ndarray:
        """Variance of shifts, with all doubt of where strata start, shape (C, F).

        `own_C` is the variance of the mean of each condition's cells, `of_controls` that of the
        mean of each stratum's controls.
        """
        noise_CF = np.repeat(own_C[:, None], n_dims, axis=1)
        for row, condition in enumerate(conditions):
            key = condition.stratum
            noise_CF[row] += self.sd(key) ** 2 if key in self.borrowed else of_controls[key]
        return noise_CF

    def beside(self, earlier: Baselines, turn_FF: np.ndarray) -> Baselines:
        """Together with those of another training in the same latent.

        `turn_FF` takes its rotated dimensions to these.
        """
        between_F = self.between_F
        if not self.borrowed and earlier.borrowed:
            between_F = earlier.between_F @ turn_FF**2
        return Baselines(
            {**earlier.borrowed, **self.borrowed},
            {**earlier.noise, **self.noise},
            between_F,
            {**earlier.offsets, **self.offsets},
        )

    def only(self, conditions: Sequence[Condition]) -> Baselines:
        """The strata that these conditions are in."""
        used = {c.stratum for c in conditions}
        return replace(
            self,
            borrowed={key: share for key, share in self.borrowed.items() if key in used},
            noise={key: variance for key, variance in self.noise.items() if key in used},
            offsets={key: offset_F for key, offset_F in self.offsets.items() if key in used},
        )


def warn_without_controls(borrowed: Mapping[StratumKey, float]) -> None:
    """Name the strata whose effects are measured from controls of other contexts."""
    if not borrowed:
        return
    names = names_of(borrowed)
    contexts = "1 context has" if len(names) == 1 else f"{len(names)} contexts have"
    warnings.warn(
        f"{contexts} fewer than {ENOUGH} control cells of their own "
        f"({examples(names, 6)}). Where they start is estimated from perturbations that other "
        "contexts share with them, and standard deviations of their effects hold the doubt that "
        "this leaves; control cells of each context would remove it.",
        UserWarning,
        stacklevel=outside(),
    )


def variance_between(
    means_CF: np.ndarray, counts: np.ndarray, conditions: Sequence[Condition]
) -> np.ndarray | None:
    """How much strata differ in each dimension, whatever was done in them, shape (F,).

    None where no two strata have a condition in common, so that nothing tells. Means of conditions,
    controls among them, are in rotated coordinates, where cells scatter by 1.
    """
    keys = [c.stratum for c in conditions]
    what = [(c.parts, c.doses) for c in conditions]
    together: dict[object, set[StratumKey]] = {}
    for done, key, n in zip(what, keys, counts, strict=True):
        if n > 0:
            together.setdefault(done, set()).add(key)
    rows = [i for i, n in enumerate(counts) if n > 0 and len(together[what[i]]) > 1]
    if not rows:
        return None
    of_what, of_key = _numbered([what[i] for i in rows]), _numbered([keys[i] for i in rows])
    weight_R, values_RF = counts[rows].astype(np.float64), means_CF[rows]
    n_keys = int(of_key.max()) + 1
    place_KF = np.zeros((n_keys, means_CF.shape[1]))
    for _ in range(ROUNDS):
        done_WF = _weighted_means(values_RF - place_KF[of_key], weight_R, of_what)
        place_KF = _weighted_means(values_RF - done_WF[of_what], weight_R, of_key)
    noise = float(np.mean(1 / np.bincount(of_key, weights=weight_R, minlength=n_keys)))
    square_F = ((place_KF - place_KF.mean(axis=0)) ** 2).sum(axis=0)
    freedom = n_keys - 1
    typical = square_F.mean() / freedom
    variance_F = (square_F + PRIOR_STRATA * typical) / (freedom + PRIOR_STRATA)
    # Of so few strata the variance is itself uncertain: a normal as wide as Student's t.
    wider = float(stats.t.ppf(0.95, freedom + PRIOR_STRATA) / stats.norm.ppf(0.95)) ** 2
    return np.asarray(np.maximum(variance_F - noise, LEAST_NOISE * noise) * wider)


def _numbered(names: Sequence[Hashable]) -> np.ndarray:
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])


def _weighted_means(values_RF: np.ndarray, weight_R: np.ndarray, group_R: np.ndarray) -> np.ndarray:
    n = int(group_R.max()) + 1
    sums = np.zeros((n, values_RF.shape[1]))
    np.add.at(sums, group_R, values_RF * weight_R[:, None])
    return sums / np.bincount(group_R, weights=weight_R, minlength=n)[:, None]
