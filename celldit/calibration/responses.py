"""How the mean log expression of a context's controls answers to a change of rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from celldit.conditions import ConditionTable
from celldit.conditions.strata import StratumKey
from celldit.data.store import CellStore
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.expected_log import expected_log

# Natural log of the factor by which rates change; beyond the ends nothing is gained or lost.
LOG_FACTORS = np.array(
    [-8, -5, -3, -2, -1.5, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6.5, 8]
)
MAX_CELLS = 64
MIN_CELLS = 5
# The mean over these stands in for contexts beyond, and for those never seen.
MAX_STRATA = 32


@dataclass(frozen=True, eq=False)
class Responses:
    """Change of mean log expression for each gene and factor of its rate.

    A curve is what editing does to measured control cells in the mean, without a draw. Latents that
    stand in for cells do not give it: the expectation of a measured cell is a function of its own
    counts, and new transcripts come where there are some already.

    Attributes
    ----------
    curves
        By (context, time), shape (P, G), at :data:`LOG_FACTORS`; ``None`` as key for their mean.
        Empty where nothing was measured.
    """

    curves: Mapping[StratumKey | None, np.ndarray]

    def curve(self, stratum: StratumKey) -> np.ndarray:
        """That of one context and time, or what stands in for it, shape (P, G)."""
        return self.curves[self._nearest(stratum)].astype(np.float32)

    def knows(self, stratum: StratumKey) -> bool:
        """Whether controls of this context were measured, at whichever time."""
        return self._nearest(stratum) is not None

    def _nearest(self, stratum: StratumKey) -> StratumKey | None:
        """Itself, or the same context at the nearest time; None, the mean, failing these."""
        if stratum in self.curves:
            return stratum
        context, time = stratum
        same = [key for key in self.curves if key is not None and key[0] == context]
        return min(same, key=lambda key: abs((key[1] or 0.0) - (time or 0.0)), default=None)

    def arrays(self) -> dict[str, np.ndarray]:
        """One row for each of :attr:`curves`, for safetensors."""
        return {"curves": np.stack(list(self.curves.values()))} if self.curves else {}

    def to_config(self) -> list[list[Any]]:
        """What the rows of :meth:`arrays` are of."""
        return [[] if key is None else list(key) for key in self.curves]

    @classmethod
    def from_config(
        cls, keys: Sequence[Sequence[Any]], arrays: Mapping[str, np.ndarray], n_genes: int
    ) -> Responses:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote.

        Raises
        ------
        ValueError
            If keys, curves and genes do not fit together.
        """
        shape = len(keys), len(LOG_FACTORS), n_genes
        curves_XPG = arrays.get("curves", np.empty(shape, dtype=np.float16))
        named = [None if not key else (str(key[0]), key[1]) for key in keys]
        if curves_XPG.shape != shape or (keys and None not in named):
            raise ValueError("its responses fit neither its contexts nor its genes")
        return cls(dict(zip(named, curves_XPG, strict=True)))


@torch.no_grad()
def measure_responses(
    cells: CellStore, table: ConditionTable, autoencoder: Autoencoder, seed: int
) -> Responses:
    """Edit some control cells of each context and time by every factor.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    autoencoder
        The trained one.
    seed
        Of the choice of cells and contexts where there are very many.
    """
    rng = np.random.default_rng(seed)
    groups = table.controls(MIN_CELLS)
    keys = list(groups)
    if len(keys) > MAX_STRATA:
        keys = [keys[i] for i in sorted(rng.permutation(len(keys))[:MAX_STRATA])]
    curves: dict[StratumKey | None, np.ndarray] = {}
    for key in keys:
        rows = np.flatnonzero(table.index == groups[key])
        some = cells.take(np.sort(rng.permutation(rows)[:MAX_CELLS]))
        size_B = torch.from_numpy(some.size_factors)
        model = autoencoder.decode(autoencoder.encode(some), size_B)
        counts_BG = torch.from_numpy(some.counts.toarray()).float()
        mean_BG, theta_G = model.mean_BG, model.theta_G
        unchanged_G = expected_log(counts_BG, mean_BG, mean_BG, theta_G, size_B).mean(0)
        curve = [
            expected_log(counts_BG, mean_BG, mean_BG * float(np.exp(log)), theta_G, size_B).mean(0)
            - unchanged_G
            for log in LOG_FACTORS
        ]
        # A curve rises; what says otherwise is the error of the integral.
        rising_PG = np.maximum.accumulate(torch.stack(curve).numpy(), axis=0)
        curves[key] = rising_PG.astype(np.float16)
    if curves:
        whole_PG = np.mean([curve.astype(np.float32) for curve in curves.values()], axis=0)
        curves[None] = whole_PG.astype(np.float16)
    return Responses(curves)
