"""What the true log fold change may be, given the predicted one: a distribution for each gene.

Most genes do not respond to most perturbations, and one normal distribution cannot be right for
them and for those that do: as wide as the errors of responding genes are, it is far too wide for
the others. So the true log fold change t of a gene with the prediction m and the standard deviation
s (:class:`celldit.calibration.effects.EffectCalibration`) has the density

    p(t) = (1 - r) N(t; 0, τ²) + r Σ_k w_k N(t; m, (c_k s)² + u²),
    logit r = a + b log(1 + (m / s)²):

a narrow part about zero of genes that do not respond, and a mixture of scales about the prediction
of those that do; u is what no comparison of predictions with measurements shows, such as what the
controls of both are off by. Of conditions that were seen the measurement tells which genes respond:
with v its sampling variance,

    r / (1 - r) = π / (1 - π) Σ_j e_j N(m; 0, d_j² + v) / N(m; 0, τ² + v),

d the sizes of effects that responding genes may have. It is the idea of adaptive shrinkage
(Stephens 2017), where predictions are the observations; what is fitted, and on what, is in
:mod:`celldit.calibration.effects.fit_shape`.

The **local false sign rate** counts the whole narrow part as false, as Stephens has it: a gene that
does not respond has no sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, ndtr

SCALES = np.array([0.25, 0.5, 0.75, 1.0, 1.5, 2.5])
#: d, standard deviations of log fold changes of genes that respond in conditions that were seen.
EFFECTS = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
#: Steps of the bisection for quantiles; each halves the error.
STEPS = 40


@dataclass(frozen=True)
class ErrorShape:
    """Parameters of the distribution; by default the normal one with mean m and deviation s.

    Attributes
    ----------
    intercept, slope
        a and b; an infinite intercept says that every gene responds.
    null_sd
        τ.
    shares
        w, one for each of :data:`SCALES`.
    responding
        π, of conditions that were seen.
    effects
        e, one for each of :data:`EFFECTS`; none where a and b tell which genes respond.
    """

    intercept: float = np.inf
    slope: float = 0.0
    null_sd: float = 0.0
    shares: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    responding: float = 1.0
    effects: tuple[float, ...] = ()

    def of(self, mean_G: np.ndarray, sd_G: np.ndarray, noise_G: np.ndarray | None = None) -> Spread:
        """The distributions of genes with these predictions and standard deviations.

        `noise_G` is v, where it is known; s² elsewhere.
        """
        ratio_G = mean_G / np.maximum(sd_G, 1e-12)
        if self.effects:
            v_G = np.maximum(sd_G**2 if noise_G is None else noise_G, 1e-12)
            own_G = density(mean_G[:, None], EFFECTS**2 + v_G[:, None]) @ np.array(self.effects)
            own_G = self.responding * own_G
            null_G = (1 - self.responding) * density(mean_G, self.null_sd**2 + v_G)
            responds_G = own_G / (own_G + null_G)
        elif np.isinf(self.intercept):
            responds_G = np.ones_like(ratio_G)
        else:
            responds_G = expit(self.intercept + self.slope * np.log1p(ratio_G**2))
        return Spread(mean_G, sd_G, responds_G, self.null_sd, np.array(self.shares))

    def to_config(self) -> dict[str, Any] | None:
        """For JSON; None for a normal distribution."""
        if self.effects:
            own = {"null_sd": self.null_sd, "responding": self.responding}
            return {**own, "effects": list(self.effects)}
        if np.isinf(self.intercept):
            return None
        return {
            "intercept": self.intercept,
            "slope": self.slope,
            "null_sd": self.null_sd,
            "shares": list(self.shares),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> ErrorShape:
        """Rebuild what :meth:`to_config` wrote; models of earlier versions have none.

        Raises
        ------
        ValueError
            If the numbers are no distribution.
        """
        if config is None:
            return cls()
        tuples = {name: tuple(config[name]) for name in ("shares", "effects") if name in config}
        shape = cls(**{**config, **tuples})
        numbers = [shape.slope, shape.null_sd, shape.responding, *shape.shares, *shape.effects]
        numbers += [] if shape.effects else [shape.intercept]
        sound = all(type(n) in (int, float) and np.isfinite(n) for n in numbers)
        sound = sound and shape.null_sd >= 0 and 0 <= shape.responding <= 1
        mixtures = [(shape.shares, SCALES)]
        mixtures += [(shape.effects, EFFECTS)] if shape.effects else []
        for shares, each in mixtures:
            sound = sound and len(shares) == len(each) and min(shares) >= 0
            sound = sound and abs(sum(shares) - 1) < 1e-6
        if not sound:
            raise ValueError("the shape of its errors is no distribution")
        return shape


@dataclass(frozen=True, eq=False)
class Spread:
    """Distributions of the true log fold changes of G genes.

    Attributes
    ----------
    mean_G, scale_G
        m and s.
    responds_G
        r, the probability that the gene responds.
    null_sd, shares_K
        τ and w.
    beside_G
        u².
    """

    mean_G: np.ndarray
    scale_G: np.ndarray
    responds_G: np.ndarray
    null_sd: float
    shares_K: np.ndarray
    beside_G: np.ndarray | float = 0.0

    @property
    def _widths_GK(self) -> np.ndarray:
        """Variances of the scales of those that respond."""
        return (self.scale_G[:, None] * SCALES) ** 2 + np.reshape(self.beside_G, (-1, 1))

    @property
    def sd_G(self) -> np.ndarray:
        """Root mean square difference between the true log fold change and m."""
        about_zero_G = self.null_sd**2 + self.mean_G**2
        about_mean_G = self._widths_GK @ self.shares_K
        r_G = self.responds_G
        return np.sqrt((1 - r_G) * about_zero_G + r_G * about_mean_G)

    @property
    def sign_G(self) -> np.ndarray:
        """Probability that the true log fold change has the sign of m."""
        sign_G: np.ndarray = (1 - self.responds_G) / 2 + self.responds_G * self._side_G
        return sign_G

    @property
    def false_sign_G(self) -> np.ndarray:
        """Local false sign rate: probability of another sign than that of m, or of none."""
        false_G: np.ndarray = 1 - self.responds_G * self._side_G
        return false_G

    @property
    def _side_G(self) -> np.ndarray:
        side_G: np.ndarray = _ndtr(np.abs(self.mean_G)[:, None], np.sqrt(self._widths_GK))
        return side_G @ self.shares_K

    def cdf(self, x_G: np.ndarray | float, noise_G: np.ndarray | float = 0.0) -> np.ndarray:
        """Probability of a value up to `x_G`, had it been measured with such a variance."""
        null_G = _ndtr(x_G, np.sqrt(self.null_sd**2 + noise_G))
        widths_GK = self._widths_GK + np.reshape(noise_G, (-1, 1))
        off_G1 = np.broadcast_to(x_G - self.mean_G, self.mean_G.shape)[:, None]
        own_G = _ndtr(off_G1, np.sqrt(widths_GK)) @ self.shares_K
        cdf_G: np.ndarray = (1 - self.responds_G) * null_G + self.responds_G * own_G
        return cdf_G

    def exceeds(self, threshold: float) -> np.ndarray:
        """Probability that the true log fold change is larger than this, up or down."""
        beyond_G: np.ndarray = 1 - self.cdf(threshold) + self.cdf(-threshold)
        return np.clip(beyond_G, 0.0, 1.0)

    def quantile(self, q: float) -> np.ndarray:
        """The value below which the true log fold change lies with probability q."""
        reach_G = 8 * (self.null_sd + np.sqrt(self._widths_GK[:, -1])) + np.abs(self.mean_G)
        low_G, high_G = -reach_G, reach_G
        for _ in range(STEPS):
            middle_G = (low_G + high_G) / 2
            is_below_G = self.cdf(middle_G) < q
            low_G = np.where(is_below_G, middle_G, low_G)
            high_G = np.where(is_below_G, high_G, middle_G)
        return (low_G + high_G) / 2


def _ndtr(x: np.ndarray | float, sd: np.ndarray | float) -> np.ndarray:
    # A deviation of nothing is a step.
    result: np.ndarray = ndtr(x / np.maximum(sd, 1e-12))
    return result


def density(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Of a normal distribution about 0."""
    found: np.ndarray = np.exp(-0.5 * x**2 / variance) / np.sqrt(2 * np.pi * variance)
    # Far out it would be nothing, and shares of nothing are none.
    return found + 1e-300
