"""Latents that stand in for the control cells of a context, and what a change of them does.

A trained model holds no cells. Where controls lie, it knows by the mean of each context and the
states that its cells are in (:mod:`celldit.conditions.states`), which tell types or phases apart
that no label does. Latents drawn from these, always the same ones, are sent where a condition
takes control cells. If all move alike, each gene's rate changes by one factor, and what that does
to mean log expression was measured (:mod:`celldit.calibration.responses`). If some respond and
others do not, no one factor says what happens: then the mean log expression before and after is had
from the rates of the single cells, in closed form (:mod:`celldit.latent.expected_log`), and the
factor is the one that would do the same to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.new_cells.library_sizes import SizeModel
from celldit.calibration.responses import LOG_FACTORS, Responses
from celldit.conditions import Condition
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.conditions.strata import StratumKey
from celldit.flow import cell_noise
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.expected_log import STEP, LogExpression
from celldit.random import CONTROLS_STREAM

N_CELLS = 256
# Strata times genes that are kept at hand, which take some 200 bytes each.
MAX_KEPT = 500_000
STEPS = [round(log_factor / STEP) for log_factor in LOG_FACTORS.tolist()]
# Cells whose latents all move alike change all rates of a gene by one factor.
ALIKE = 1e-4
# A gene that hardly answers is left alone: log expression that a unit of log rate should earn.
LEAST_ANSWER = 0.02
MAX_OFFSET = 2.0
# By how much decoded log rates are off, about.
OFF = 0.5
ROUNDS = 6
# Library sizes: quantiles about the mean of a stratum, which is rounded so that strata share.
SIZES, ROUNDED = (0.1, 0.3, 0.5, 0.7, 0.9), 0.25
# Where nothing answers, any factor does the same: then it is the mean over cells.
SLOPE = 1e-4


@dataclass(frozen=True, eq=False)
class Change:
    """What happens to the mean log expression of cells that are sent somewhere.

    Attributes
    ----------
    shift_F
        Mean over cells of the shift of the latent.
    rate_G
        Mean counts per 10,000 afterwards.
    curve_PG
        Change of mean log expression when rates are multiplied, too, at
        :data:`~celldit.calibration.responses.LOG_FACTORS`.
    log_factor_G
        Where on its curve each gene is with no factor.
    """

    shift_F: np.ndarray
    rate_G: np.ndarray
    curve_PG: np.ndarray
    log_factor_G: np.ndarray

    def at(self, offset_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Change of mean log expression under a further log factor, and its slope, each (G,)."""
        value_1G, slope_1G = read(self.curve_PG, (self.log_factor_G + offset_G)[None])
        return value_1G[0], slope_1G[0]

    @property
    def decoded_G(self) -> np.ndarray:
        """Change of mean log expression with rates as they are decoded, (G,)."""
        return self.at(np.zeros_like(self.log_factor_G))[0]

    def factor(self, gene: int, value: float) -> float:
        """Further log factor of one gene that brings about a change of its mean log expression."""
        total = np.interp(value, self.curve_PG[:, gene], LOG_FACTORS)
        return float(total - self.log_factor_G[gene])

    def offset(
        self, wanted_G: np.ndarray, noise_G: np.ndarray | None = None, most: float = MAX_OFFSET
    ) -> np.ndarray:
        """Log factor of each gene that brings about a change, (G,).

        Parameters
        ----------
        wanted_G
            Change of mean log expression.
        noise_G
            Its sampling variance; None for none that is known.
        most
            Bound on the size of a log factor.
        """
        # Posterior mode, linearised: the factor is N(0, OFF²) before the mean is seen.
        tie_G = LEAST_ANSWER**2 + (0.0 if noise_G is None else noise_G / OFF**2)
        offset_G = np.zeros_like(self.log_factor_G)
        for _ in range(ROUNDS):
            now_G, slope_G = self.at(offset_G)
            missing_G = wanted_G - now_G + slope_G * offset_G
            full_G = slope_G * missing_G / (slope_G**2 + tie_G)
            offset_G += (full_G - offset_G).clip(-1, 1)
        return offset_G.clip(-most, most)


def read(curve_PG: np.ndarray, log_factor_QG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of each gene at some log factors, and its slope there, each (Q, G)."""
    inside_QG = log_factor_QG.clip(LOG_FACTORS[0], LOG_FACTORS[-1])
    left_QG = (
        np.searchsorted(LOG_FACTORS, inside_QG, side="right").clip(1, len(LOG_FACTORS) - 1) - 1
    )
    low_QG, high_QG = (np.take_along_axis(curve_PG, left_QG + i, axis=0) for i in (0, 1))
    slope_QG = (high_QG - low_QG) / (LOG_FACTORS[left_QG + 1] - LOG_FACTORS[left_QG])
    return low_QG + slope_QG * (inside_QG - LOG_FACTORS[left_QG]), slope_QG


@dataclass(frozen=True, eq=False)
class References:
    """Latents that stand in for the controls of one context and time.

    Attributes
    ----------
    autoencoder
        For its decoder.
    z_NKD
        The latents, float32.
    curve_PG
        Change of mean log expression when all rates are multiplied by
        :data:`~celldit.calibration.responses.LOG_FACTORS`.
    of_rates
        Expected log expression by log rate; None reads any change by its mean over cells.
    """

    autoencoder: Autoencoder
    z_NKD: Tensor
    curve_PG: np.ndarray
    of_rates: LogExpression | None

    @cached_property
    def rate_G(self) -> np.ndarray:
        """Mean expected counts per 10,000 of each gene."""
        return _mean(self._log_rates(self.z_NKD).exp_())

    @torch.no_grad()
    def change(self, moved_NKD: Tensor) -> Change:
        """What happens when the cells are sent to other latents."""
        away_NF = (moved_NKD - self.z_NKD).flatten(1)
        shift_F = away_NF.double().mean(0)
        alike = float((away_NF - shift_F).abs().max()) < ALIKE
        before_NG, after_NG = self._log_rates(self.z_NKD), self._log_rates(moved_NKD)
        log_factor_G, curve_PG = _mean(after_NG - before_NG), self.curve_PG
        if self.of_rates is not None and not alike:
            factor_PG = self._factors(self.of_rates, after_NG, log_factor_G)
            curve_PG, _ = read(curve_PG, factor_PG)
            log_factor_G = np.zeros_like(log_factor_G)
        return Change(shift_F.numpy(), _mean(after_NG.exp_()), curve_PG, log_factor_G)

    def _factors(self, of_rates: LogExpression, after_NG: Tensor, mean_G: np.ndarray) -> np.ndarray:
        """Log factors of all rates that do what the change and one more factor do, (P, G)."""
        points_P1 = LOG_FACTORS[:, None]
        cells_PG = of_rates.means(of_rates.shares(after_NG), STEPS).double().numpy()
        cells_PG += SLOPE * (points_P1 + mean_G)
        all_PG = self._levels + SLOPE * points_P1
        found_PG = np.empty_like(cells_PG)
        for g in range(cells_PG.shape[1]):
            found_PG[:, g] = np.interp(cells_PG[:, g], all_PG[:, g], LOG_FACTORS)
        return found_PG

    @cached_property
    def _levels(self) -> np.ndarray:
        """Mean log expression when all rates are multiplied by one factor, (P, G)."""
        assert self.of_rates is not None
        shares_PG = self.of_rates.shares(self._log_rates(self.z_NKD))
        levels_PG: np.ndarray = self.of_rates.means(shares_PG, STEPS).numpy()
        return levels_PG

    @torch.no_grad()
    def _log_rates(self, z_NKD: Tensor) -> Tensor:
        return self.autoencoder.decoder.log_rate(z_NKD.flatten(1))


def _mean(values_NG: Tensor) -> np.ndarray:
    mean_G: np.ndarray = values_NG.mean(0, dtype=torch.float64).numpy()
    return mean_G


class ReferenceControls:
    """The :class:`References` of every context and time.

    Parameters
    ----------
    autoencoder, population
        The trained parts.
    responses
        How measured controls answer to a change of rates.
    states
        States that cells may be in; None for one Gaussian about the mean of the controls, and for
        changes that are read by their mean over cells, as models of formats 1 and 2 had it.
    sizes
        Library sizes of training cells.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        population: Population,
        responses: Responses,
        states: States | None,
        sizes: SizeModel,
    ) -> None:
        self.autoencoder, self.population, self.responses = autoencoder, population, responses
        self.states, self.sizes = states, sizes
        self._known: dict[tuple[StratumKey, bytes], References] = {}
        self._of_rates: dict[float, LogExpression] = {}

    def of(self, stratum: StratumKey, reference_F: np.ndarray | None = None) -> References:
        """Those of one stratum, always the same.

        Parameters
        ----------
        stratum
            Context and time.
        reference_F
            Mean latent of the controls where training had none.
        """
        mean_F = self.population.references.get(stratum, reference_F)
        if mean_F is None:
            raise KeyError(stratum)
        key = stratum, mean_F.tobytes()
        found = self._known.get(key)
        if found is None:
            if len(self._known) * len(self.autoencoder.genes) >= MAX_KEPT:
                self._known.clear()
            found = self._known[key] = self._make(stratum, mean_F)
        return found

    def _make(self, stratum: StratumKey, mean_F: np.ndarray) -> References:
        n_tokens, token_dim = self.autoencoder.n_tokens, self.autoencoder.token_dim
        shape = (n_tokens * token_dim,)
        noise_NF = cell_noise(torch.arange(N_CELLS), shape, 0, CONTROLS_STREAM).double().numpy()
        of_rates = None
        if self.states is None:
            drawn_NF = mean_F + noise_NF @ self.population.factor(stratum).T
        else:
            state_N = _states_of(self.states, stratum)
            drawn_NF = self.states.offsets_SF[state_N].astype(np.float64)
            for state in np.unique(state_N):
                own = state_N == state
                drawn_NF[own] += noise_NF[own] @ self.states.factors_SFF[state].T
            drawn_NF += mean_F - drawn_NF.mean(0)
            of_rates = self._table(state_N)
        z_NKD = torch.from_numpy(drawn_NF.astype(np.float32)).view(-1, n_tokens, token_dim)
        curve_PG = np.zeros((len(LOG_FACTORS), len(self.autoencoder.genes)), dtype=np.float32)
        if self.responses.curves:
            curve_PG = self.responses.curve(stratum)
        return References(self.autoencoder, z_NKD, curve_PG, of_rates)

    def _table(self, state_N: np.ndarray) -> LogExpression:
        sizes = self.sizes
        mean = round(float(sizes.mean_S[state_N].mean()) / ROUNDED) * ROUNDED
        if mean not in self._of_rates:
            grid = np.linspace(0, 1, len(sizes.quantiles))
            away = sizes.spread_S.mean() * np.interp(SIZES, grid, sizes.quantiles)
            theta_G = self.autoencoder.decoder.head.theta_G.detach()
            self._of_rates[mean] = LogExpression.of(theta_G, np.exp(mean + away))
        return self._of_rates[mean]


def _states_of(states: States, stratum: StratumKey) -> np.ndarray:
    """State of each draw: as many of each as its share says, int64, shape (N,)."""
    context, time = stratum
    rows, share = states.options(Condition(context=context, time=time))
    # The rounded course of the running sum gives every state its share to within one cell.
    ends = np.rint(np.cumsum(share) / share.sum() * N_CELLS).astype(np.int64)
    return np.repeat(rows, np.diff(ends, prepend=0))
