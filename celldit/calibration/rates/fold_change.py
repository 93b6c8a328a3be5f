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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.control_draws import control_draws
from celldit.calibration.means import MeanCalibration, ResidualEffect, mean_shift
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.population import Population
from celldit.conditions.strata import StratumKey
from celldit.latent.autoencoder import Autoencoder

ControlRates = Mapping[StratumKey, np.ndarray]
PSEUDO_RATE = 0.05  # counts per 10,000: below this a gene counts as hardly expressed


class Decoded(NamedTuple):
    """What some latents are decoded to, on average over them.

    Attributes
    ----------
    z_NKD
        The latents.
    rate_G, log_rate_G
        Mean expected counts per 10,000 of each gene, and the mean of their logarithms.
    """

    z_NKD: Tensor
    rate_G: np.ndarray
    log_rate_G: np.ndarray

    @classmethod
    @torch.no_grad()
    def of(cls, autoencoder: Autoencoder, z_NKD: Tensor) -> Decoded:
        """Decode N latents."""
        log_NG = autoencoder.decoder.log_rate(z_NKD.flatten(1))
        log_rate_G = log_NG.mean(0, dtype=torch.float64).numpy()
        return cls(z_NKD, log_NG.exp_().mean(0, dtype=torch.float64).numpy(), log_rate_G)


@dataclass(frozen=True, eq=False)
class FoldChanges:
    """Log ratios of mean rates after and before, of one condition after another.

    A pseudo-rate of 0.05 counts per 10,000 is added to both, so that genes which are hardly
    expressed do not show large ratios of next to nothing.

    Attributes
    ----------
    autoencoder
        For its decoder.
    population
        Where control cells lie and how they scatter.
    control_rates
        Measured rates; where it knows none of a stratum, decoded ones stand in.
    mean_calibration
        What corrects decoded rates.
    """

    autoencoder: Autoencoder
    population: Population
    control_rates: ControlRates
    mean_calibration: MeanCalibration

    @cached_property
    def _controls(self) -> dict[StratumKey, Decoded]:
        """Controls of the strata so far: most conditions share theirs."""
        return {}

    def _control(self, stratum: StratumKey, reference_F: np.ndarray | None) -> Decoded:
        if stratum not in self._controls:
            shape = self.autoencoder.n_tokens, self.autoencoder.token_dim
            drawn = control_draws(self.population, shape, stratum, reference_F)
            self._controls[stratum] = Decoded.of(self.autoencoder, drawn)
        return self._controls[stratum]

    def control_rate(self, stratum: StratumKey, reference_F: np.ndarray | None) -> np.ndarray:
        """Counts per 10,000 in the controls of a stratum, measured or else decoded, shape (G,)."""
        measured_G = self.control_rates.get(stratum)
        found = self._control(stratum, reference_F).rate_G if measured_G is None else measured_G
        return np.asarray(found, dtype=np.float64)

    def of(
        self,
        stratum: StratumKey,
        kind: Extrapolation | None,
        beyond: ResidualEffect,
        effect_F: np.ndarray | None = None,
        reference_F: np.ndarray | None = None,
        move: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated and as decoded, natural logarithms, each of shape (G,).

        Parameters
        ----------
        stratum
            Context and time.
        kind, beyond
            How far the condition is from training, and what is known of it beyond the latent.
        effect_F
            Shift of the latent, the same for every cell; None for none.
        reference_F
            Mean latent of the controls where training had none.
        move
            Control cells (N, K, D) to predicted cells, before the shift; None moves nothing.
        """
        before = self._control(stratum, reference_F)
        moved = before.z_NKD if move is None else move(before.z_NKD)
        if effect_F is not None:
            moved = moved + torch.from_numpy(effect_F.astype(np.float32)).view(*moved.shape[1:])
        after = Decoded.of(self.autoencoder, moved)
        offset_G = self.mean_calibration.offset_of(
            stratum,
            kind,
            after.log_rate_G - before.log_rate_G,
            mean_shift(before.z_NKD, moved),
            beyond,
        )
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
        ceiling_G: np.ndarray = self.autoencoder.decoder.log_ceiling.exp().double().numpy()
        return ceiling_G
