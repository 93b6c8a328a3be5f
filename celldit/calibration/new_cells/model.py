"""Draw new cells so that, encoded again, they look like measured ones.

The latent of a measured cell holds its counting noise, which a cell that is drawn from it gets a
second time. What has to be decoded is the latent without the noise. Its scatter is known, because
adding the noise must give the scatter that was measured (deconvolution by moments):

    z' = position + S (z - position) + shift        S, shift such that cov, mean(encode(draw(z')))
                                                    are those of encode(measured cells)

for each state (:mod:`celldit.conditions.states`). Each gene has an offset of its log rate, in each
state one more and a factor of its dispersion (:mod:`celldit.calibration.new_cells.by_state`), so
that its log expression has the mean and variance that were measured. Totals are held to their
scatter (:mod:`celldit.calibration.new_cells.counts`), and counts get each gene's distribution last
(:mod:`celldit.calibration.new_cells.quantiles`). How all of it is found is in
:mod:`celldit.calibration.new_cells.fit`. Counterfactuals, which edit measured cells, need none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.new_cells.counts import NewCounts
from celldit.calibration.new_cells.library_sizes import SizeModel
from celldit.calibration.new_cells.quantiles import CountQuantiles
from celldit.latent.autoencoder import Autoencoder


@dataclass(frozen=True, eq=False)
class NewCellModel:
    """What turns latents of the flow into latents to decode, and expectations into counts.

    Attributes
    ----------
    maps_XFF, shifts_XF
        S and shift of each of X states.
    offset_G, theta_G
        What is added to each gene's log rate, and its inverse dispersion; without entries where
        nothing was learned.
    total_X, share
        Usual log total of rates per 10,000 in each state, and the share of a cell's deviation
        from it that stays (see :class:`~celldit.calibration.new_cells.counts.NewCounts`).
    offset_XG, log_factor_XG
        What is added to log rates, and to the log of inverse dispersions, in each state; 0 in
        models that know no such thing.
    sizes
        Library sizes of each state and condition.
    count_quantiles
        Distributions of counts, and those that drawn counts have before.
    learned
        Whether all training looked at how new cells are drawn; otherwise none are to be.
    """

    maps_XFF: np.ndarray
    shifts_XF: np.ndarray
    offset_G: np.ndarray
    theta_G: np.ndarray
    total_X: np.ndarray
    offset_XG: np.ndarray
    log_factor_XG: np.ndarray
    share: float
    sizes: SizeModel
    count_quantiles: CountQuantiles = field(default_factory=CountQuantiles.none)
    learned: bool = True

    def latents(self, z_BKD: Tensor, positions_BKD: Tensor, row_B: np.ndarray) -> Tensor:
        """Latents to decode, from those of the flow, and the means and numbers of their states."""
        at = torch.from_numpy(row_B)
        away_BF1 = (z_BKD - positions_BKD).flatten(1).double()[:, :, None]
        # One product per cell: its bytes must not depend on who else is in the batch.
        moved_BF = (torch.from_numpy(self.maps_XFF)[at] @ away_BF1)[:, :, 0]
        moved_BF = moved_BF + torch.from_numpy(self.shifts_XF)[at]
        return positions_BKD + moved_BF.view(z_BKD.shape).to(z_BKD.dtype)

    def counts(
        self,
        autoencoder: Autoencoder,
        z_BKD: Tensor,
        size_B: Tensor,
        row_B: np.ndarray,
        offset_BG: Tensor | None = None,
    ) -> NewCounts:
        """Distribution of the counts of new cells, from their latents, sizes and states.

        Parameters
        ----------
        autoencoder
            For its decoder.
        z_BKD, size_B, row_B
            Latents, library sizes and states of B cells.
        offset_BG
            What brings their conditions to their mean, as for counterfactuals; None for nothing.
        """
        log_rate_BG = autoencoder.decoder.log_rate(z_BKD.flatten(1))
        own_BG = torch.from_numpy(self.offset_G + self.offset_XG[row_B])
        log_rate_BG = log_rate_BG + own_BG.to(log_rate_BG.dtype)
        if offset_BG is not None:
            log_rate_BG = log_rate_BG + offset_BG
        log_rate_BG = torch.minimum(log_rate_BG, autoencoder.decoder.log_ceiling)
        mean_BG = log_rate_BG.exp() * (size_B[:, None] / 1e4)
        theta_BG = self.theta_G * np.exp(self.log_factor_XG[row_B])
        return NewCounts.held(
            mean_BG,
            torch.from_numpy(theta_BG).to(mean_BG.dtype),
            size_B,
            torch.from_numpy(self.total_X[row_B]),
            self.share,
            self.count_quantiles,
            row_B,
        )

    @classmethod
    def not_learned(cls, n_states: int, sizes: SizeModel, n_dims: int) -> NewCellModel:
        """Nothing but the library sizes: no new cells are to be drawn."""
        maps_XFF, none = np.tile(np.eye(n_dims), (n_states, 1, 1)), np.zeros(0)
        shifts_XF, alike = np.zeros((n_states, n_dims)), np.zeros((n_states, 0), dtype=np.float32)
        own = maps_XFF, shifts_XF, none, none, np.zeros(n_states), alike, alike
        return cls(*own, 1.0, sizes, learned=False)

    def with_earlier(self, earlier: NewCellModel, kept: np.ndarray) -> NewCellModel:
        """Together with some states of an earlier training; genes are as in this one."""
        alike = np.zeros((len(kept), self.offset_XG.shape[1]), dtype=np.float32)
        return replace(
            self,
            maps_XFF=np.concatenate([self.maps_XFF, earlier.maps_XFF[kept]]),
            shifts_XF=np.concatenate([self.shifts_XF, earlier.shifts_XF[kept]]),
            total_X=np.concatenate([self.total_X, earlier.total_X[kept]]),
            sizes=self.sizes.with_earlier(earlier.sizes, kept),
            offset_XG=np.concatenate([self.offset_XG, alike]),
            log_factor_XG=np.concatenate([self.log_factor_XG, alike]),
            learned=self.learned and (earlier.learned or len(kept) == 0),
        )

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        sizes = self.sizes.to_config()
        return {"share": self.share, "learned": self.learned, "sizes": sizes}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        own = {name: getattr(self, name) for name in ARRAYS}
        sizes = {f"sizes.{name}": array for name, array in self.sizes.arrays().items()}
        count_quantiles = {
            f"margins.{name}": array for name, array in self.count_quantiles.arrays().items()
        }
        return {**own, **sizes, **count_quantiles}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> NewCellModel:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote.

        Raises
        ------
        ValueError
            If arrays do not fit X states and G genes.
        """
        shape = len(arrays["maps_XFF"]), len(arrays["offset_G"])
        alike = dict.fromkeys(BY_STATE, np.zeros(shape, dtype=np.float32))
        own = {name: {**alike, **arrays}[name] for name in ARRAYS}
        if any(own[name].shape != shape for name in BY_STATE):
            raise ValueError("what genes do by state fits neither its states nor its genes")

        def under(start: str) -> dict[str, np.ndarray]:
            return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}

        return cls(
            share=float(config["share"]),
            learned=bool(config.get("learned", True)),
            sizes=SizeModel.from_config(config.get("sizes", {}), under("sizes.")),
            count_quantiles=CountQuantiles.from_arrays(under("margins."), shape[1]),
            **own,
        )


BY_STATE = ("offset_XG", "log_factor_XG")
ARRAYS = ("maps_XFF", "shifts_XF", "offset_G", "theta_G", "total_X", *BY_STATE)
