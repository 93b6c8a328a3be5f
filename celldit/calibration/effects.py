"""Log fold changes and how far they are off.

A log fold change is s times that of rates after mean calibration plus t times that of rates as they
are decoded (:mod:`celldit.calibration.rates.fold_change`), s and t at least 0 and together at most
1.

The effect prior knows how uncertain its latent shift is, but not what the latent leaves out of a
gene, nor how the decoder bends a large effect. Both show when training conditions are predicted and
compared with what was measured (:mod:`celldit.calibration.fit_effects`):

    variance = a · prior variance + b · (predicted log fold change)² + c of the gene
               + e of the gene · prior standard deviation.

The last is what is left of a gene that is measured badly (:mod:`celldit.calibration.intervals`).

Conditions that training has seen and each kind of those that it has not have numbers of their own
where enough genes respond in them and in those that they borrow from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from celldit.conditions.extrapolation import Extrapolation

# Of the names of arrays that hold e.
ROUGH = ".rough"


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
        Genes (over conditions) that it was fitted on, borrowed ones among them; 0 where there were
        too few, and the prior's standard deviation stands as it is.
    by_kind
        Those of kinds of extrapolation that have their own.
    rough
        e, of each gene, shape (G,), or of all.
    """

    calibrated: float = 1.0
    decoded: float = 0.0
    prior: float = 1.0
    relative: float = 0.0
    constant: np.ndarray | float = 0.0
    n_responding: int = 0
    by_kind: Mapping[Extrapolation, EffectCalibration] = field(default_factory=dict)
    rough: np.ndarray | float = 0.0

    def _of(self, kind: Extrapolation | None) -> EffectCalibration:
        return self if kind is None else self.by_kind.get(kind, self)

    def fold_change(
        self, calibrated_G: np.ndarray, decoded_G: np.ndarray, kind: Extrapolation | None
    ) -> np.ndarray:
        """Log fold changes from those of calibrated and decoded rates; the kind as in :meth:`sd`.

        A kind without its own is read as conditions that training has seen: how rates and mean
        log expression belong together is no matter of how far a prediction reaches.
        """
        own = self._of(kind if kind in self.by_kind else Extrapolation.SEEN)
        return own.calibrated * calibrated_G + own.decoded * decoded_G

    def sd(
        self, prior_sd: np.ndarray, fold_change: np.ndarray, kind: Extrapolation | None
    ) -> np.ndarray:
        """Standard deviation of log fold changes, of the shape of the first two arguments.

        The kind is None for another dose or time of what was seen: it is not as sure as the same.
        """
        own = self._of(kind)
        of_prior = own.prior * prior_sd**2 + own.rough * prior_sd
        return np.sqrt(of_prior + own.relative * fold_change**2 + own.constant)

    def with_earlier(
        self, genes: Sequence[str], earlier: EffectCalibration, earlier_genes: Sequence[str]
    ) -> EffectCalibration:
        """What an earlier training learned, where this one had nothing to learn from.

        Parameters
        ----------
        genes, earlier_genes
            Of this calibration, and of the other; without all of these the other is of no use.
        earlier
            The other.
        """
        place = {gene: i for i, gene in enumerate(earlier_genes)}
        if self.n_responding or self.by_kind or not all(gene in place for gene in genes):
            return self
        return earlier._of_genes(np.array([place[gene] for gene in genes], dtype=np.int64))

    def _of_genes(self, column_G: np.ndarray) -> EffectCalibration:
        def chosen(each: np.ndarray | float) -> np.ndarray | float:
            return each[column_G] if isinstance(each, np.ndarray) else each

        return replace(
            self,
            constant=chosen(self.constant),
            rough=chosen(self.rough),
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
            "by_kind": {str(kind): own.to_config() for kind, own in self.by_kind.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors: c and e of each gene, overall and by kind."""
        every = {"all": self, **{str(kind): own for kind, own in self.by_kind.items()}}
        values = {name: own.constant for name, own in every.items()}
        values |= {f"{name}{ROUGH}": own.rough for name, own in every.items()}
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

        Files of the first release know no kinds, and one constant for all genes; later ones no e.

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
        if any(np.shape(each) not in ((), (n_genes,)) for each in (constant, rough)):
            raise ValueError("its calibration of effects does not fit its genes")
        own = {name: value for name, value in config.items() if name != "aimed"}
        calibrated = float(config.get("aimed", 1.0))
        return cls(
            **{
                **own,
                "calibrated": calibrated,
                "constant": constant,
                "rough": rough,
                "by_kind": by_kind,
            }
        )
