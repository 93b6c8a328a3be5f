"""How far tables of effects hold here: perturbations that both know are left out, and say.

With S the covariance of the observed shifts y in one dimension and B the rows of a perturbation,
the error of predicting B from all others is linear in y (Rasmussen & Williams 2006, eq. 5.12),

    e(y)_B = ((S⁻¹)_BB)⁻¹ (S⁻¹ y)_B,

so that with a table of effects m taken off it is e(y) - a e(m). The amplitudes a >= 0 of all tables
are the non-negative least squares (Lawson & Hanson 1974) of these errors, each dimension by the
variance that the process expects of it.

A table fits by chance, too, the more easily the fewer perturbations are shared. Its effects are
therefore dealt out to its perturbations at random, many times. With g the log likelihood that a
table gains over none, at the amplitude that gains most, the probability that its rows belong to the
names they carry is

    p = 1 / (1 + mean over shuffles of exp(g(shuffled) - g(own)) + 1 / Z),

all odds even before anything is seen. Of two or three perturbations there are few orders, by which
noise seldom does much better than its own; therefore Z, the likelihood over that of no table with
the amplitude not chosen but anywhere between 0 and 4 (an integral, which has a closed form), must
speak for the table as well. A table of less than even odds after it is not used. The
amplitude of any other is multiplied by p, as the least squared error has it (Hoeting et al. 1999),
and what p leaves open is part of its standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import nnls
from scipy.special import expit, log_ndtr, logsumexp

from celldit.effects.tables.elsewhere import UNLEARNED, Elsewhere, Key, TableEffects

if TYPE_CHECKING:
    from celldit.effects.prior import EffectPrior

SHUFFLES = 199
MOST_CONDITIONS = 300
MOST_AMPLITUDE = 4.0
EVEN = 0.5
# Odds at which a table is said to contradict.
SURE = 0.9
# Perturbations more that would say that a table leaves all open.
TIE = 2.0


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Errors of perturbations left out, as a linear map of what is taken off their shifts."""

    keys: tuple[Key, ...]  # the G perturbations
    error_GF: np.ndarray  # of predicting each from the others, averaged over its conditions
    variance_GF: np.ndarray  # what the process expects of its square
    own_GF: np.ndarray  # how much of that is the part that the perturbation has of its own
    onto_FGC: np.ndarray  # takes shifts of all C conditions to such errors, for each dimension

    def of(self, shifts_CF: np.ndarray) -> np.ndarray:
        """The same errors of other shifts, (G, F)."""
        return np.einsum("fgc,cf->gf", self.onto_FGC, shifts_CF)

    def scaled(self, error_GF: np.ndarray) -> np.ndarray:
        """Errors in units of what is expected, (G·F,)."""
        return np.asarray((error_GF / np.sqrt(self.variance_GF)).ravel())


def left_out(prior: EffectPrior, keys: Sequence[Key]) -> LeftOut:
    """Leave each of G observed perturbations or combinations out, with all conditions it is in.

    A combination is left out alone, as what is added up from its parts is what it would be
    predicted by. The prior is that with the strengths for perturbations never seen.
    """
    rows = range(len(prior.conditions))
    own_of = [[i for i in rows if prior.conditions[i].parts == key] for key in keys]
    gone_of = [
        [i for i in rows if key[0] in prior.conditions[i].parts] if len(key) == 1 else own
        for key, own in zip(keys, own_of, strict=True)
    ]
    n_dims, kernel_C = len(prior.signal), prior.own_variances()
    error, variance, own = np.zeros((3, len(keys), n_dims))
    onto = np.zeros((n_dims, len(keys), len(prior.conditions)))
    shifts = prior.shifts - prior.means(prior.conditions)
    for k in range(n_dims):
        precision_CC = np.linalg.inv(prior.covariance_of_shifts(k))
        for g, (removed, member) in enumerate(zip(gone_of, own_of, strict=True)):
            at = np.searchsorted(removed, member)
            cover_BB = np.linalg.inv(precision_CC[np.ix_(removed, removed)])
            onto[k, g] = (cover_BB[at] @ precision_CC[removed]).mean(axis=0)
            variance[g, k] = cover_BB[np.ix_(at, at)].mean()
            own[g, k] = prior.signal[k] * kernel_C[member].mean()
        error[:, k] = onto[k] @ shifts[:, k]
    return LeftOut(tuple(keys), error, variance, own, onto)


def believed(prior: EffectPrior, tables: Sequence[TableEffects], seed: int = 0) -> Elsewhere:
    """The tables with amplitude, reliability and what they leave open.

    The prior is tuned without any table. The seed is of shuffles, and of the choice of conditions
    where there are very many.
    """
    rng = np.random.default_rng(seed)
    base = prior.of_unseen
    seen = {c.parts for c in base.conditions}
    if not seen:
        return Elsewhere(tuple(replace(_unlearned(t), with_common=True) for t in tables))
    base, shared = _chosen(base, sorted(seen & {k for t in tables for k in t.keys}), rng)
    tried = [t for t in tables if any(key in t for key in shared)]
    if not tried:
        return Elsewhere(tuple(_unlearned(table) for table in tables))
    out = left_out(base, shared)
    target = out.scaled(out.error_GF)
    odds = [_odds(base, table, out, target, rng) for table in tried]
    kept = [i for i, (p, _) in enumerate(odds) if p > EVEN]
    amplitude, sd = np.zeros((2, len(tried)))
    if kept:
        matrix = np.stack(
            [out.scaled(out.of(base.table_means(tried[i], base.conditions))) for i in kept], axis=1
        )
        found = nnls(matrix, target)[0].clip(max=MOST_AMPLITUDE)
        missed = float(((target - matrix @ found) ** 2).mean())
        noise = np.diag(np.linalg.pinv(matrix.T @ matrix)) * max(missed, 1.0)
        p = np.array([odds[i][0] for i in kept])
        amplitude[kept] = p * found
        sd[kept] = np.sqrt(p * noise + p * (1 - p) * found**2)
    taken = np.zeros_like(base.shifts)
    for a, table in zip(amplitude, tried, strict=True):
        taken += a * base.table_means(table, base.conditions)
    rest_GF = out.error_GF - out.of(taken)
    learned = {}
    for i, table in enumerate(tried):
        used = amplitude[i] > 0
        learned[table.name] = replace(
            table,
            amplitude=float(amplitude[i]),
            sd=float(sd[i]) if used else 0.0,
            share=_left_open(out, rest_GF, table) if used else 1.0,
            reliability=odds[i][0],
            shared=tuple(key for key in shared if key in table),
            contradicts=odds[i][1],
        )
    return Elsewhere(tuple(learned.get(t.name) or _unlearned(t) for t in tables))


def _unlearned(table: TableEffects) -> TableEffects:
    """A table that shares no perturbation."""
    amplitude, sd, share = UNLEARNED
    return replace(table, amplitude=amplitude, sd=sd, share=share, reliability=EVEN)


def _chosen(
    prior: EffectPrior, shared: Sequence[Key], rng: np.random.Generator
) -> tuple[EffectPrior, list[Key]]:
    """At most 300 conditions, those of shared perturbations first."""
    if len(prior.conditions) <= MOST_CONDITIONS:
        return prior, list(shared)
    order = {shared[i]: rank for rank, i in enumerate(rng.permutation(len(shared)))}
    rank = [order.get(c.parts, len(order)) for c in prior.conditions]
    rows = sorted(np.argsort(rank, kind="stable")[:MOST_CONDITIONS].tolist())
    some = prior.rows(rows)
    seen = {c.parts for c in some.conditions}
    return some, [key for key in shared if key in seen]


class _Fit(NamedTuple):
    """Errors regressed on a table: inner products of it with the errors, and with itself."""

    along: float
    square: float

    @property
    def slope(self) -> float:
        """The amplitude that gains most."""
        return min(max(self.along / self.square, 0.0), MOST_AMPLITUDE)

    @property
    def gain(self) -> float:
        """Log likelihood over that of no table, at that amplitude."""
        return self.slope * self.along - 0.5 * self.slope**2 * self.square

    @property
    def evidence(self) -> float:
        """The same with the amplitude anywhere between 0 and the most, log Z."""
        best, width = self.along / self.square, self.square**-0.5
        low, high = -best / width, (MOST_AMPLITUDE - best) / width
        # In the lower tail, where both are told apart.
        low, high = (-high, -low) if low > 0 else (low, high)
        within = log_ndtr(high) + np.log1p(-np.exp(log_ndtr(low) - log_ndtr(high)))
        uniform = 0.5 * np.log(2 * np.pi) + np.log(width) - np.log(MOST_AMPLITUDE)
        return float(0.5 * best * self.along + uniform + within)


def _odds(
    prior: EffectPrior,
    table: TableEffects,
    out: LeftOut,
    target: np.ndarray,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The probability p, and the slope where it is below zero beyond doubt, else 0."""
    rows = np.array([table.row[key] for key in out.keys if key in table])

    def fit(of: TableEffects, sign: float = 1.0) -> _Fit:
        column = sign * out.scaled(out.of(prior.table_means(of, prior.conditions)))
        return _Fit(float(column @ target), max(float(column @ column), 1e-12))

    dealt = []
    for _ in range(SHUFFLES):
        means_PF = table.means_PF.copy()
        means_PF[rows] = means_PF[rng.permutation(rows)]
        dealt.append(replace(table, means_PF=means_PF))

    def probability(sign: float) -> tuple[float, float]:
        own = fit(table, sign)
        if own.gain <= 0:
            return 0.0, own.slope
        chance = logsumexp([fit(each, sign).gain for each in dealt]) - np.log(SHUFFLES)
        against = np.logaddexp(chance - own.gain, -own.evidence)
        return float(expit(-against)), own.slope

    p, slope = probability(1.0)
    if p > 0:
        return p, 0.0
    against, slope = probability(-1.0)
    return 0.0, -slope if against > SURE else 0.0


def _left_open(out: LeftOut, rest_GF: np.ndarray, table: TableEffects) -> float:
    """τ, by regression of what is missed on the variance that a perturbation has of its own."""
    held = [i for i, key in enumerate(out.keys) if key in table]
    own, whole, rest = out.own_GF[held], out.variance_GF[held], rest_GF[held]
    excess = rest**2 - (whole - own)
    share = float((excess * own / whole**2).sum() / ((own / whole) ** 2).sum())
    return float(np.clip((len(held) * share + TIE) / (len(held) + TIE), 0.05, 1.0))
