"""What the controls of a context look like at each time of training, and between these times.

A cell that is sent to another time is held to the mean log expression of that time; see
:mod:`celldit.inference.offsets`. At a time of training that was measured. Between two it
lies on the straight line from the one to the other, in the progress of the course. From four times
on it lies on the posterior mean of a Gaussian process through all of them: a line and a deviation,
with the sampling noise of every mean. The deviation is once differentiable (Matérn 3/2; Rasmussen &
Williams 2006, section 4.2.1) or, where every time has something of its own, rough (Matérn 1/2),
which keeps close to straight lines between neighbours. Which, how far courses deviate, and over
which length, has the largest restricted likelihood over the genes whose means tell times apart;
fewer times cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from celldit.calibration.fit_means import log_expression
from celldit.conditions import ConditionTable
from celldit.conditions.strata import StratumKey
from celldit.conditions.time_scale import TimeScale, bracket, times_by_context
from celldit.data.store import CellStore

# Fewer controls say too little about the mean of a gene.
MIN_CELLS = 20
# Beyond a straight line three times have one number to tell, which is not enough.
MIN_TIMES = 4
# The many silent genes, with more noise than this share of what times differ by, would decide.
MOST_NOISE = 0.25
JITTER = 1e-9
LENGTHS = (0.25, 0.5, 1.0, 2.0)
AMPLITUDES = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Curve:
    """How the mean course deviates from a line.

    Attributes
    ----------
    amplitude
        Variance of the deviation, in units of each gene's variance over times; 0 for the straight
        line between neighbouring times.
    length
        Over which it changes, in progress of the course.
    smooth
        Whether it has a slope everywhere.
    """

    amplitude: float = 0.0
    length: float = 1.0
    smooth: bool = True

    def covariance(self, u_T: np.ndarray, v_S: np.ndarray) -> np.ndarray:
        """Of the deviations at two sets of progress, (T, S)."""
        away_TS = np.abs(u_T[:, None] - v_S) / self.length
        if self.smooth:
            away_TS = np.sqrt(3) * away_TS
        return np.asarray(self.amplitude * (1 + away_TS * self.smooth) * np.exp(-away_TS))


@dataclass(frozen=True, eq=False)
class TemporalMeans:
    """Mean log expression of controls through time.

    Attributes
    ----------
    means
        Of each context and time, shape (G,); only of contexts that were seen at several times.
    noise
        Variance of each of these means; none in models that know no curve.
    curve
        How the course bends.
    """

    means: Mapping[StratumKey, np.ndarray]
    noise: Mapping[StratumKey, np.ndarray] = field(default_factory=dict)
    curve: Curve = field(default_factory=Curve)

    @classmethod
    def fit(
        cls, cells: CellStore, table: ConditionTable, scale: TimeScale | None = None
    ) -> TemporalMeans:
        """Measure training cells.

        Parameters
        ----------
        cells, table
            Training cells and their conditions.
        scale
            Progress of the course; None for even steps.
        """
        rows: dict[StratumKey, int] = {}
        for i, condition in enumerate(table.conditions):
            timed = condition.is_control and condition.time is not None
            if timed and table.counts[i] >= MIN_CELLS:
                rows[condition.stratum] = i
        contexts = [context for context, _ in rows]
        several = {key: i for key, i in rows.items() if contexts.count(key[0]) > 1}
        if not several:
            return cls({})
        mean_CG, sd_G = log_expression(cells, table)
        means = {key: mean_CG[i].astype(np.float32) for key, i in several.items()}
        noise = {k: (sd_G**2 / table.counts[i]).astype(np.float32) for k, i in several.items()}
        times = [time for _, time in several if time is not None]
        scale = TimeScale(min(times), max(times)) if scale is None else scale
        measured = cls(means, noise)
        return replace(measured, curve=measured._choose_curve(scale))

    def knows(self, start: StratumKey, end: StratumKey) -> bool:
        """Whether these are two times of one context, the first of which was measured."""
        return start != end and start in self.means and start[0] == end[0] and end[1] is not None

    def mean(self, key: StratumKey, scale: TimeScale) -> np.ndarray:
        """Mean log expression of the controls of a known context at any time, (G,).

        Outside the times of its context it is that of the nearest.
        """
        context, time = key
        own, line_G = self._of(context), self.line(key, scale)
        assert time is not None
        inside = min(own) < time < max(own) and time not in own
        if not inside or self.curve.amplitude == 0 or len(own) < MIN_TIMES:
            return line_G
        times = sorted(own)
        mean_GT, noise_GT, unit_G = self._measured(context, times)
        u_T = np.array([scale.progress(t) for t in times])
        weight_GT = curve_weights(u_T, noise_GT, scale.progress(time), self.curve)
        return np.asarray(unit_G * (weight_GT * mean_GT).sum(1))

    def line(self, key: StratumKey, scale: TimeScale) -> np.ndarray:
        """The same on the straight line between the times before and after, (G,)."""
        own = self._of(key[0])
        low, high, share = bracket(sorted(own), key[1], scale)
        assert low is not None
        assert high is not None
        return np.asarray((1 - share) * own[low] + share * own[high])

    def _of(self, context: str) -> dict[float, np.ndarray]:
        return {t: m for (c, t), m in self.means.items() if c == context and t is not None}

    def _measured(
        self, context: str, times: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means at some times and their variances, (G, T), in each gene's own unit, (G,)."""
        mean_GT = np.stack([self.means[context, t] for t in times], axis=1).astype(np.float64)
        noise_GT = np.stack([self.noise[context, t] for t in times], axis=1).astype(np.float64)
        unit_G1 = np.maximum(mean_GT.var(1, ddof=1), noise_GT.mean(1))[:, None] + 1e-9
        return mean_GT / np.sqrt(unit_G1), noise_GT / unit_G1, np.sqrt(unit_G1[:, 0])

    def _choose_curve(self, scale: TimeScale) -> Curve:
        """The likeliest curve, over all contexts of four times or more; else the line."""
        candidates = [Curve(*each) for each in product(AMPLITUDES, LENGTHS, (True, False))]
        likelihood, known = np.zeros(len(candidates)), False
        for context, times in times_by_context(self.means).items():
            if len(times) < MIN_TIMES:
                continue
            mean_GT, noise_GT, _ = self._measured(context, times)
            if (clear_G := noise_GT.mean(1) < MOST_NOISE).any():
                known = True
                u_T = np.array([scale.progress(t) for t in times])
                own = mean_GT[clear_G], noise_GT[clear_G], u_T
                likelihood += [_likelihood(*own, c) for c in candidates]
        return candidates[int(likelihood.argmax())] if known else Curve()

    def with_earlier(self, earlier: TemporalMeans, column_G: np.ndarray) -> TemporalMeans:
        """Together with the contexts that only an earlier training knew.

        `column_G` are the columns of these genes among the earlier ones.
        """
        own = {context for context, _ in self.means}
        kept, noise = (
            {key: x_G[column_G] for key, x_G in each.items() if key[0] not in own}
            for each in (earlier.means, earlier.noise)
        )
        curve = self.curve if self.means else earlier.curve
        if len(kept) != len(noise):
            # The line needs no noise; a curve does, for every context.
            curve = Curve()
        return TemporalMeans({**kept, **self.means}, {**noise, **self.noise}, curve)

    def to_config(self) -> list[list[Any]]:
        """What the rows of :meth:`arrays` are of."""
        return [list(key) for key in self.means]

    def arrays(self) -> dict[str, np.ndarray]:
        """One row for each context and time, for safetensors; none where nothing is known."""
        if not self.means:
            return {}
        found = {"means": np.stack(list(self.means.values()))}
        if len(self.noise) == len(self.means):
            found["noise"] = np.stack([self.noise[key] for key in self.means])
            found["curve"] = np.array(astuple(self.curve), dtype=np.float64)
        return found

    @classmethod
    def from_config(
        cls, keys: Sequence[Sequence[Any]], arrays: Mapping[str, np.ndarray], n_genes: int
    ) -> TemporalMeans:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote; older models have none.

        Raises
        ------
        ValueError
            If the arrays do not fit the contexts or the genes.
        """
        means_SG = arrays.get("means", np.empty((0, n_genes), dtype=np.float32))
        strata = [(str(context), time) for context, time in keys]
        if means_SG.shape != (len(keys), n_genes):
            raise ValueError("its course fits neither its contexts nor its genes")
        means = dict(zip(strata, means_SG, strict=True))
        if "noise" not in arrays:
            return cls(means)
        # Of older models every curve is smooth.
        if arrays["noise"].shape != means_SG.shape or arrays["curve"].shape not in ((2,), (3,)):
            raise ValueError("the noise of its course fits neither its contexts nor its genes")
        noise = dict(zip(strata, arrays["noise"], strict=True))
        amplitude, length, *smooth = arrays["curve"].tolist()
        return cls(means, noise, Curve(amplitude, length, *map(bool, smooth)))


def curve_weights(u_T: np.ndarray, noise_GT: np.ndarray, u: float, curve: Curve) -> np.ndarray:
    """Weights of T values in the value of a curve at u, (G, T).

    Parameters
    ----------
    u_T
        Where the values are.
    noise_GT
        Their variances.
    u
        Where to read the curve.
    curve
        How it deviates from a line, which is not shrunken.
    """
    n_times = len(u_T)
    basis_T2 = np.stack([np.ones(n_times), u_T], axis=1)
    system = np.zeros((len(noise_GT), n_times + 2, n_times + 2))
    system[:, :n_times, :n_times] = curve.covariance(u_T, u_T)
    system[:, np.arange(n_times), np.arange(n_times)] += noise_GT + JITTER
    system[:, :n_times, n_times:] = basis_T2
    system[:, n_times:, :n_times] = basis_T2.T
    wanted = np.concatenate([curve.covariance(u_T, np.array([u]))[:, 0], [1.0, u]])
    found = np.linalg.solve(system, np.broadcast_to(wanted[:, None], (*system.shape[:2], 1)))
    return np.asarray(found[:, :n_times, 0])


def _likelihood(mean_GT: np.ndarray, noise_GT: np.ndarray, u_T: np.ndarray, curve: Curve) -> float:
    """Log likelihood of what does not lie on a line, summed over genes."""
    basis_T2 = np.stack([np.ones(len(u_T)), u_T], axis=1)
    # Contrasts that no line changes.
    rest_TR = np.linalg.svd(basis_T2)[0][:, 2:]
    rest_GR = mean_GT @ rest_TR
    noise_GRR = np.einsum("tr,gt,ts->grs", rest_TR, noise_GT + JITTER, rest_TR)
    total_GRR = noise_GRR + rest_TR.T @ curve.covariance(u_T, u_T) @ rest_TR
    solved_GR = np.linalg.solve(total_GRR, rest_GR[:, :, None])[:, :, 0]
    log_size_G = np.linalg.slogdet(total_GRR)[1]
    return float(-0.5 * (log_size_G.sum() + (rest_GR * solved_GR).sum()))
