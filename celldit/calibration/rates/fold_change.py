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

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.control_draws import control_draws
from celldit.calibration.means import MeanCalibration, ResidualEffect
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.population import Population
from celldit.conditions.strata import StratumKey
from celldit.latent.autoencoder import Autoencoder

ControlRates = Mapping[StratumKey, np.ndarray]
PSEUDO_RATE = 0.05  # counts per 10,000: below this a gene counts as hardly expressed


def fold_changes(
    autoencoder: Autoencoder,
    population: Population,
    stratum: StratumKey,
    control_rates: ControlRates,
    mean_calibration: MeanCalibration,
    kind: Extrapolation | None,
    beyond: ResidualEffect,
    effect_F: np.ndarray | None = None,
    reference_F: np.ndarray | None = None,
    move: Callable[[Tensor], Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Log ratios of mean rates after and before, calibrated and as decoded, natural, each (G,).

    A pseudo-rate of 0.05 counts per 10,000 is added to both, so that genes which are hardly
    expressed do not show large ratios of next to nothing.

    Parameters
    ----------
    autoencoder
        For its decoder.
    population
        Where control cells lie and how they scatter.
    stratum
        Context and time.
    control_rates
        Measured rates; where it knows none of this stratum, decoded ones stand in.
    mean_calibration, kind, beyond
        What corrects decoded rates, how far the condition is from training, and what is known of
        it beyond the latent.
    effect_F
        Shift of the latent, the same for every cell; None for none.
    reference_F
        Mean latent of the controls where training had none.
    move
        Control cells (N, K, D) to predicted cells, before the shift; None moves nothing.
    """
    shape = autoencoder.n_tokens, autoencoder.token_dim
    control = control_draws(population, shape, stratum, reference_F)
    moved = control if move is None else move(control)
    if effect_F is not None:
        moved = moved + torch.from_numpy(effect_F.astype(np.float32)).view(*shape)
    before_G, after_G = (mean_decoded_rates(autoencoder, z) for z in (control, moved))
    offset_G = mean_calibration.offset(autoencoder, stratum, kind, control, moved, beyond)
    base_G = np.asarray(control_rates.get(stratum, before_G), dtype=np.float64)

    def ratio(after_G: np.ndarray) -> np.ndarray:
        kept_G = base_G * np.minimum(after_G / np.maximum(before_G, 1e-12), 1)
        changed_G = kept_G + np.maximum(after_G - before_G, 0)
        return np.log((changed_G + PSEUDO_RATE) / (base_G + PSEUDO_RATE))

    # Bounded as the rates of predicted cells are.
    ceiling_G = autoencoder.decoder.log_ceiling.exp().double().numpy()
    calibrated_G = np.minimum(after_G * np.exp(offset_G), np.maximum(after_G, ceiling_G))
    return ratio(calibrated_G), ratio(after_G)


@torch.no_grad()
def mean_decoded_rates(autoencoder: Autoencoder, z_NKD: Tensor) -> np.ndarray:
    """Mean expected counts per 10,000 of some latents, shape (G,)."""
    size_N = torch.full((len(z_NKD),), 1e4)
    return autoencoder.decode(z_NKD, size_N).mean_BG.double().mean(0).numpy()
