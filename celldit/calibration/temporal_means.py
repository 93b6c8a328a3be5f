"""What the controls of a context look like at each time of training, and between these times.

A cell that is sent to another time is held to the mean log expression of that time; see
:mod:`celldit.inference.offsets`. Between two times of training it lies on the straight line from
the one to the other. From four times on it is the posterior mean of a Gaussian process given the
means of all times, with the sampling noise of each: a line that is left open, a rough part that
wanders from time to time (Wiener) and a smooth one that bends (Matérn 3/2; Rasmussen & Williams
2006, sections 2.7 and 4.2.1). Where many cells were measured and the course turns at every time,
that is close to the straight line between neighbours; where few were, more times are averaged.

At a time of training the measured mean is kept, noisy as it is, so that cells sent there agree
with those measured there; from four times on there is a jump of that noise to the times beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
# Variances of the rough part, at the end of the course, and of the smooth one, in units of each
# gene's own over its times, and the progress over which the smooth one bends: a compromise between
# courses of cell lines, of an embryo and of a made-up process (docs/generation.md).
ROUGH, SMOOTH, LENGTH = 3.0, 3.0, 0.5
JITTER = 1e-9


@dataclass(frozen=True, eq=False)
class TemporalMeans:
    """Mean log expression of controls through time.

    Attributes
    ----------
    means
        Of each context and time, shape (G,); only of contexts that were seen at several times.
    noise
        Variance of each of these means; none of contexts from older models, that knew none.
    """

    means: Mapping[StratumKey, np.ndarray]
    noise: Mapping[StratumKey, np.ndarray] = field(default_factory=dict)

    @classmethod
    def fit(cls, cells: CellStore, table: ConditionTable) -> TemporalMeans:
        """Measure training cells, given their conditions."""
        rows = {key: i for key, i in table.controls(MIN_CELLS).items() if key[1] is not None}
        contexts = [context for context, _ in rows]
        several = {key: i for key, i in rows.items() if contexts.count(key[0]) > 1}
        if not several:
            return cls({})
        mean_CG, sd_G = log_expression(cells, table)
        means = {key: mean_CG[i].astype(np.float32) for key, i in several.items()}
        noise = {k: (sd_G**2 / table.counts[i]).astype(np.float32) for k, i in several.items()}
        return cls(means, noise)

    def knows(self, start: StratumKey, end: StratumKey) -> bool:
        """Whether these are two times of one context, the first of which was measured."""
        return start != end and start in self.means and start[0] == end[0] and end[1] is not None

    def mean(self, key: StratumKey, scale: TimeScale) -> np.ndarray:
        """Mean log expression of the controls of a known context at any time, (G,).

        Outside the times of its context it is that of the nearest.
        """
        context, time = key
        times = times_by_context(self.means)[context]
        low, _, share = bracket(times, time, scale)
        if share == 0 or len(times) < MIN_TIMES or (context, low) not in self.noise:
            return self.line(key, scale)
        assert time is not None
        mean_TG, noise_TG = (
            np.stack([of[context, t] for t in times]) for of in (self.means, self.noise)
        )
        u_T = np.array([scale.progress(t) for t in times])
        weight_GT = _weights(mean_TG, noise_TG, u_T, scale.progress(time))
        return np.asarray((weight_GT.T * mean_TG).sum(0))

    def line(self, key: StratumKey, scale: TimeScale) -> np.ndarray:
        """The same on the straight line between the times before and after, (G,)."""
        low, high, share = bracket(times_by_context(self.means)[key[0]], key[1], scale)
        return np.asarray((1 - share) * self.means[key[0], low] + share * self.means[key[0], high])

    def with_earlier(self, earlier: TemporalMeans, column_G: np.ndarray) -> TemporalMeans:
        """Together with the contexts that only an earlier training knew.

        `column_G` are the columns of these genes among the earlier ones.
        """
        own = {context for context, _ in self.means}
        kept, noise = (
            {key: x_G[column_G] for key, x_G in each.items() if key[0] not in own}
            for each in (earlier.means, earlier.noise)
        )
        return TemporalMeans({**kept, **self.means}, {**noise, **self.noise})

    def to_config(self) -> list[list[Any]]:
        """What the rows of :meth:`arrays` are of."""
        return [list(key) for key in self._rows()]

    def arrays(self) -> dict[str, np.ndarray]:
        """One row for each context and time, for safetensors; none where nothing is known.

        Those without noise come last, so the noise may have fewer rows.
        """
        rows = self._rows()
        found = {"means": [self.means[key] for key in rows]}
        found["noise"] = [self.noise[key] for key in rows if key in self.noise]
        return {name: np.stack(arrays) for name, arrays in found.items() if arrays}

    def _rows(self) -> list[StratumKey]:
        return sorted(self.means, key=lambda key: key not in self.noise)

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
        none_RG = np.empty((0, n_genes), dtype=np.float32)
        means_SG, noise_RG = (arrays.get(name, none_RG) for name in ("means", "noise"))
        fits = means_SG.shape == (len(keys), n_genes) and noise_RG.shape[1:] == (n_genes,)
        if not fits or len(noise_RG) > len(keys):
            raise ValueError("its course fits neither its contexts nor its genes")
        strata = [(str(context), time) for context, time in keys]
        noise = dict(zip(strata[: len(noise_RG)], noise_RG, strict=True))
        return cls(dict(zip(strata, means_SG, strict=True)), noise)


def _weights(mean_TG: np.ndarray, noise_TG: np.ndarray, u_T: np.ndarray, u: float) -> np.ndarray:
    """Weights of the means of T times, at progress `u_T`, in the mean at u, (G, T).

    They keep every straight line.
    """
    n_times, n_genes = mean_TG.shape
    unit_G = np.maximum(mean_TG.var(0, ddof=1), noise_TG.mean(0)) + JITTER
    basis_T2 = np.stack([np.ones(n_times), u_T], axis=1)
    system = np.zeros((n_genes, n_times + 2, n_times + 2))
    system[:, :n_times, :n_times] = _covariance(u_T, u_T)
    system[:, np.arange(n_times), np.arange(n_times)] += (noise_TG / unit_G).T + JITTER
    system[:, :n_times, n_times:] = basis_T2
    system[:, n_times:, :n_times] = basis_T2.T
    wanted = np.concatenate([_covariance(u_T, np.array([u]))[:, 0], [1.0, u]])
    found = np.linalg.solve(system, np.broadcast_to(wanted[:, None], (*system.shape[:2], 1)))
    return np.asarray(found[:, :n_times, 0])


def _covariance(u_T: np.ndarray, v_S: np.ndarray) -> np.ndarray:
    """Of the deviation from a line at two sets of progress, (T, S)."""
    away_TS = np.sqrt(3) * np.abs(u_T[:, None] - v_S) / LENGTH
    rough_TS = ROUGH * np.minimum(u_T[:, None], v_S)
    return np.asarray(rough_TS + SMOOTH * (1 + away_TS) * np.exp(-away_TS))
