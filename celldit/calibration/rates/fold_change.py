"""What a shift of the latent does to the expectation of genes, over the cells of a context.

The decoder says how the expectation changes, and the measured rate of the controls changes
accordingly, as those of single cells do
(:meth:`celldit.latent.likelihoods.CountModel.counterfactual_mean`):

    after = control · min(1, decoded after / decoded before) + max(0, decoded after - before).

Decoded rates alone, averaged over draws about the mean of a context, are too high for genes that
are all but silent in it: log fold changes of genes that wake came out half as large as measured.
Rates after are those of mean calibration (:mod:`celldit.calibration.means`), as in predicted cells,
and once more as decoded. Neither is the log ratio of mean rates that is wanted: mean calibration is
about mean log expression, and where some cells of a condition respond and others do not, the
logarithm falls further than one factor for all of them would make it. Training conditions tell how
to weigh the two (:mod:`celldit.calibration.effects`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.means import MeanCalibration, ResidualEffect
from celldit.calibration.reference_controls import ReferenceControls
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.strata import StratumKey

ControlRates = Mapping[StratumKey, np.ndarray]
PSEUDO_RATE = 0.05  # counts per 10,000: below this a gene counts as hardly expressed


@dataclass(frozen=True, eq=False)
class FoldChanges:
    """Log ratios of mean rates after and before, of one condition after another.

    A pseudo-rate of 0.05 counts per 10,000 is added to both, so that genes which are hardly
    expressed do not show large ratios of next to nothing.

    Attributes
    ----------
    references
        What stands in for control cells.
    control_rates
        Measured rates; where it knows none of a stratum, decoded ones stand in.
    mean_calibration
        What corrects decoded rates.
    """

    references: ReferenceControls
    control_rates: ControlRates
    mean_calibration: MeanCalibration

    def control_rate(self, stratum: StratumKey, reference_F: np.ndarray | None) -> np.ndarray:
        """Counts per 10,000 in the controls of a stratum, measured or else decoded, shape (G,)."""
        found_G = self.control_rates.get(stratum)
        if found_G is None:
            found_G = self.references.of(stratum, reference_F).rate_G
        return np.asarray(found_G, dtype=np.float64)

    def of(
        self,
        stratum: StratumKey,
        kind: Extrapolation | None,
        residual: ResidualEffect,
        effect_F: np.ndarray,
        reference_F: np.ndarray | None = None,
        move: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated and as decoded, natural logarithms, each of shape (G,).

        Parameters
        ----------
        stratum
            Context and time.
        kind, residual
            How far the condition is from training, and what is known of it beyond the latent.
        effect_F
            The effect model's shift of the latent.
        reference_F
            Mean latent of the controls where training had none.
        move
            Control cells (N, K, D) to predicted cells; None for the shift, the same for every cell.
        """
        before = self.references.of(stratum, reference_F)
        z_NKD = before.z_NKD
        if move is None:
            moved = z_NKD + torch.from_numpy(effect_F.astype(np.float32)).view(z_NKD.shape[1:])
        else:
            moved = move(z_NKD)
        after = before.change(moved)
        known = self.references.responses.knows(stratum)
        # Training conditions tell how far log fold changes fall short, own genes among them.
        residual = residual._replace(targets=())
        offset_G = self.mean_calibration.offset(kind, after, effect_F, residual, known=known)
        base_G = self.control_rate(stratum, reference_F)

        def ratio(after_G: np.ndarray) -> np.ndarray:
            kept_G = base_G * np.minimum(after_G / np.maximum(before.rate_G, 1e-12), 1)
            changed_G = kept_G + np.maximum(after_G - before.rate_G, 0)
            return np.log((changed_G + PSEUDO_RATE) / (base_G + PSEUDO_RATE))

        # Bounded as the rates of predicted cells are.
        ceiling_G = np.maximum(after.rate_G, self._ceiling_G)
        calibrated_G = np.minimum(after.rate_G * np.exp(offset_G), ceiling_G)
        return ratio(calibrated_G), ratio(after.rate_G)

    @cached_property
    def _ceiling_G(self) -> np.ndarray:
        ceiling = self.references.autoencoder.decoder.log_ceiling.exp()
        ceiling_G: np.ndarray = ceiling.double().numpy()
        return ceiling_G
