"""Log fold changes and how far they are off.

A log fold change is s times that of rates after mean calibration plus t times that of rates as they
are decoded (:mod:`celldit.calibration.rates.fold_change`), s and t at least 0 and together at most
1.

The effect prior knows how uncertain its latent shift is, but not what the latent leaves out of a
gene, nor how the decoder bends a large effect. Both show when training conditions are predicted and
compared with what was measured (:mod:`celldit.calibration.effects.fit`):

    variance = a · prior variance + b · (predicted log fold change)² + c of the gene
               + e of the gene · prior standard deviation.

The last is what is left of a gene that is measured badly
(:mod:`celldit.calibration.effects.intervals`).

Conditions that training has seen and each kind of those that it has not have numbers of their own
where enough genes respond in them and in those that they borrow from.

What was measured and what was predicted share the control cells where both are of one context, so
that comparisons do not show what these were off by. Predictions of a seen condition follow a share
f of it (:mod:`celldit.calibration.effects.intervals`), and f² times the controls' sampling variance
is added; those of a combination follow it with each of its parts. Of n cells the variance is
(u / rate + φ of the gene) / n, with u the counts per 10,000 that one count makes and φ the squared
coefficient of variation between cells. What that changes is in ``docs/results/effect_doubt.csv``.

Of a seen condition the perturbed cells tell more: had the prediction missed by much more than what
their mean is off by, they would have shown it. So with v their sampling variance, at the predicted
rate, the variance is 1 / (1 / variance + 1 / 6 v). Which of its genes respond is asked with v and f
times the variance of the controls.

What the variance is of is a distribution with a shape of its own
(:mod:`celldit.calibration.effects.shape`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from celldit.calibration.effects.shape import ErrorShape, Spread
from celldit.calibration.rates.fold_change import PSEUDO_RATE
from celldit.conditions.extrapolation import Extrapolation

# In seen conditions, of the sampling variance of their mean: an error of two and a half standard
# errors would show.
MOST_NOISE = 6.0
# Of the names of arrays that hold e, and of the one that holds φ.
ROUGH, SCATTER = ".rough", "control_scatter"
SAME_CONTROLS = (
    Extrapolation.COMBINATION,
    Extrapolation.UNSEEN,
    Extrapolation.UNKNOWN,
)
"""Kinds that are learned from conditions which share their controls with those they learn from."""


@dataclass(frozen=True, eq=False)
class EffectCalibration:
    """Coefficients of a log fold change and of its variance; see the module.

    Attributes
    ----------
    calibrated, decoded
        s and t.
    prior, relative
        a and b, the scale included, for conditions that training has not seen.
    constant
        c, of each gene, shape (G,), or of all.
    n_responding
        Responding genes (over conditions) that it was fitted on, borrowed ones among them, and 1
        where none responds; 0 where there were too few genes, and the prior's standard deviation
        stands as it is.
    by_kind
        Those of kinds of extrapolation that have their own.
    rough
        e, of each gene, shape (G,), or of all.
    shape
        Of the distribution of errors.
    control_scatter
        φ, of each gene, shape (G,), or of all.
    one_count
        u; 0 in models of earlier versions, which add nothing for controls.
    control_followed
        f.
    """

    calibrated: float = 1.0
    decoded: float = 0.0
    prior: float = 1.0
    relative: float = 0.0
    constant: np.ndarray | float = 0.0
    n_responding: int = 0
    by_kind: Mapping[Extrapolation, EffectCalibration] = field(default_factory=dict)
    rough: np.ndarray | float = 0.0
    shape: ErrorShape = field(default_factory=ErrorShape)
    control_scatter: np.ndarray | float = 0.0
    one_count: float = 0.0
    control_followed: float = 1.0

    def of_kind(self, kind: Extrapolation | None) -> EffectCalibration:
        """That of a kind of extrapolation where it has its own."""
        return self if kind is None else self.by_kind.get(kind, self)

    def fold_change(
        self, calibrated_G: np.ndarray, decoded_G: np.ndarray, kind: Extrapolation | None
    ) -> np.ndarray:
        """Log fold changes from those of calibrated and decoded rates; the kind as in :meth:`sd`.

        A kind without its own is read as conditions that training has seen: how rates and mean
        log expression belong together is no matter of how far a prediction reaches.
        """
        own = self.of_kind(kind if kind in self.by_kind else Extrapolation.SEEN)
        return own.calibrated * calibrated_G + own.decoded * decoded_G

    def scale(
        self, prior_sd: np.ndarray, fold_change: np.ndarray, kind: Extrapolation | None
    ) -> np.ndarray:
        """Root of the variance of the module, of the shape of the first two arguments.

        The kind is None for another dose or time of what was seen: it is not as sure as the same.
        """
        own = self.of_kind(kind)
        of_prior = own.prior * prior_sd**2 + own.rough * prior_sd
        return np.sqrt(of_prior + own.relative * fold_change**2 + own.constant)

    def spread(
        self,
        prior_sd_G: np.ndarray,
        fold_change_G: np.ndarray,
        kind: Extrapolation | None,
        *,
        control_rate_G: np.ndarray,
        n_controls: float,
        n_cells: float = 0,
        n_parts: int = 1,
        added_sd_G: np.ndarray | float = 0.0,
    ) -> Spread:
        """Distributions of the true log fold changes of one condition.

        Parameters
        ----------
        prior_sd_G, fold_change_G, kind
            As in :meth:`scale`.
        control_rate_G
            Counts per 10,000 in the controls.
        n_controls
            How many control cells these are.
        n_cells
            How many cells of the condition were seen.
        n_parts
            How many perturbations the condition has.
        added_sd_G
            What else is not known of each.
        """
        variance_G, noise_G = self.scale(prior_sd_G, fold_change_G, kind) ** 2, None
        if kind is Extrapolation.SEEN and n_cells and n_controls and self.one_count:
            rate_G = control_rate_G * np.exp(fold_change_G)
            noise_G = self._of_log_rate(rate_G, n_cells)
            variance_G = shown(variance_G, noise_G)
            # Of what the controls are off by, predictions hold what they follow.
            followed_G = self.control_followed * self._of_log_rate(control_rate_G, n_controls)
            noise_G = noise_G + followed_G
        variance_G = variance_G + np.square(added_sd_G)
        shape = self.of_kind(kind).shape
        unseen_share = self._share_of_controls(kind, n_parts)
        if not unseen_share or not n_controls:
            return shape.of(fold_change_G, np.sqrt(variance_G), noise_G)
        of_controls_G = self._of_log_rate(control_rate_G, n_controls)
        # Whether a gene responds is asked as if all of it were followed: a sign is soon wrong.
        doubtful_G = variance_G + of_controls_G * max(unseen_share, 1.0)
        spread = shape.of(fold_change_G, np.sqrt(doubtful_G), noise_G)
        # No comparison shows it, so it has no part in the shape of errors that comparisons have.
        beside_G = unseen_share * of_controls_G
        return replace(spread, scale_G=np.sqrt(variance_G), beside_G=beside_G)

    def _share_of_controls(self, kind: Extrapolation | None, n_parts: int) -> float:
        """How much of the variance of controls predictions hold, and comparisons do not show.

        A measurement m = t - e and a prediction p = t' - k f e of k perturbations, e being what the
        controls are off by, differ by (1 - k f) e, where the prediction is off by k f e. In another
        context the two have controls of their own, and comparisons show all of it.
        """
        if kind is Extrapolation.SEEN:
            return self.control_followed**2
        if kind in SAME_CONTROLS:
            return max(2 * n_parts * self.control_followed - 1, 0.0)
        return 0.0

    def _of_log_rate(self, rate_G: np.ndarray, n: float) -> np.ndarray:
        """Sampling variance of the log mean rate of n cells that scatter as controls do."""
        # As for measured groups: had there been one more count, since none proves no silence.
        poisson_G = (rate_G + self.one_count / n) * self.one_count
        variance_G: np.ndarray = (poisson_G + self.control_scatter * rate_G**2) / n
        return variance_G / (rate_G + PSEUDO_RATE) ** 2

    def with_earlier(self, earlier: EffectCalibration, column_G: np.ndarray) -> EffectCalibration:
        """What an earlier training learned, where this one had nothing to learn from.

        `column_G` are the columns of these genes among the earlier ones.
        """
        return self if self.n_responding or self.by_kind else earlier._of_genes(column_G)

    def _of_genes(self, column_G: np.ndarray) -> EffectCalibration:
        def chosen(each: np.ndarray | float) -> np.ndarray | float:
            return each[column_G] if isinstance(each, np.ndarray) else each

        return replace(
            self,
            constant=chosen(self.constant),
            rough=chosen(self.rough),
            control_scatter=chosen(self.control_scatter),
            by_kind={kind: own._of_genes(column_G) for kind, own in self.by_kind.items()},
        )

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON; in place of one its mean."""
        return {
            "aimed": self.calibrated,
            "decoded": self.decoded,
            "prior": self.prior,
            "relative": self.relative,
            "constant": float(np.mean(self.constant)),
            "rough": float(np.mean(self.rough)),
            "n_responding": self.n_responding,
            "shape": self.shape.to_config(),
            "control_scatter": float(np.mean(self.control_scatter)),
            "one_count": self.one_count,
            "control_followed": self.control_followed,
            "by_kind": {str(kind): own.to_config() for kind, own in self.by_kind.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors: c and e of each gene, overall and by kind."""
        every = {"all": self, **{str(kind): own for kind, own in self.by_kind.items()}}
        values = {name: own.constant for name, own in every.items()}
        values |= {f"{name}{ROUGH}": own.rough for name, own in every.items()}
        values[SCATTER] = self.control_scatter
        return {name: each for name, each in values.items() if isinstance(each, np.ndarray)}

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        n_genes: int,
        name: str = "all",
    ) -> EffectCalibration:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote.

        Files of the first release know no kinds, and one constant for all genes; later ones no e;
        those before this version no shape.

        Raises
        ------
        ValueError
            If arrays and genes do not fit together.
        """
        by_kind = {
            Extrapolation(kind): cls.from_config(own, arrays, n_genes, kind)
            for kind, own in config.get("by_kind", {}).items()
        }
        constant = arrays.get(name, config["constant"])
        rough = arrays.get(f"{name}{ROUGH}", config.get("rough", 0.0))
        scatter = config.get("control_scatter", 0.0)
        if name == "all":
            scatter = arrays.get(SCATTER, scatter)
        if any(np.shape(each) not in ((), (n_genes,)) for each in (constant, rough, scatter)):
            raise ValueError("its calibration of effects does not fit its genes")
        own = {name: value for name, value in config.items() if name != "aimed"}
        calibrated = float(config.get("aimed", 1.0))
        return cls(
            **{
                **own,
                "calibrated": calibrated,
                "constant": constant,
                "rough": rough,
                "shape": ErrorShape.from_config(config.get("shape")),
                "control_scatter": scatter,
                "by_kind": by_kind,
            }
        )


def shown(variance_G: np.ndarray, noise_G: np.ndarray) -> np.ndarray:
    """Variance of errors that a measurement of this sampling variance would show if larger."""
    most_G = MOST_NOISE * noise_G
    return variance_G * most_G / np.maximum(variance_G + most_G, 1e-12)
