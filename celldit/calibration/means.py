"""Where the mean log expression of counterfactual cells should end up, and how to get it there.

Two things say what a shift of the latent does to a gene's mean log expression: its decoded rates,
when measured control cells are edited by them (D, :mod:`celldit.calibration.responses`), and a
straight line from the latent to log expression (L). The first bends as counts do and knows large
effects best; it loses part of an effect where counts are few, since what an autoencoder makes of a
cell holds that cell's own noise. The second is exact on average over training cells, and misses
what bends. Neither sees what the latent has no room for, the perturbed gene's own transcripts first
of all, which is told gene by gene (R, :mod:`celldit.effects.residual_genes`). Training conditions
that were predicted from the others tell how to weigh the three,

    wanted = a D + b L + c R,   a, b >= 0,   a + b <= 1.2,   0 <= c <= 1,

by least squares over genes and conditions, for each kind of extrapolation. Rates of a condition are
then multiplied, gene by gene and alike in all its cells, by what brings its controls there. Genes
that are perturbed for the first time are multiplied by what perturbing a gene does to it on average
(:mod:`celldit.calibration.on_target`).

Measured beside decoded rates alone in ``docs/results/aim.csv``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.on_target import OnTarget
from celldit.calibration.responses import Responses
from celldit.conditions import Condition
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.strata import StratumKey
from celldit.effects import EffectPrior
from celldit.effects.residual_genes import ResidualGenes
from celldit.effects.tables.elsewhere import Elsewhere, Further
from celldit.latent.autoencoder import Autoencoder, short

# Weights before anything is known.
START_WEIGHTS = (0.5, 0.5, 1.0)
# A gene that hardly answers is left alone: log expression that a unit of log rate should earn.
LEAST_ANSWER = 0.02
MOST_OFFSET = 2.0
# Where the mean over other contexts stands in: a gene that is silent there and not here would be
# pushed as far as silence takes.
MOST_STAND_IN = 0.5
ROUNDS = 6


Weights: TypeAlias = tuple[float, float, float]


class ResidualEffect(NamedTuple):
    """What is known of a condition beyond the latent.

    Attributes
    ----------
    residual_G
        Further change of mean log expression.
    new_genes
        Columns of the genes that are perturbed and never were in training, and of which nothing is
        known from elsewhere.
    further
        What was measured elsewhere of single genes.
    """

    residual_G: np.ndarray
    new_genes: np.ndarray
    further: Further


@dataclass(frozen=True, eq=False)
class MeanCalibration:
    """How counterfactual rates are corrected; see the module.

    Attributes
    ----------
    slopes_FG
        Slopes of log expression on the latent; without rows where nothing is corrected.
    responses
        How controls answer to a change of rates.
    residual_genes
        What measured effects hold beyond the latent.
    on_target
        What perturbing a gene does to it.
    weights
        a, b and c by kind of extrapolation; under None those of all conditions left out whose
        perturbations were seen, for another dose or time, and for kinds that could not be tried.
    """

    slopes_FG: np.ndarray
    responses: Responses
    residual_genes: ResidualGenes
    on_target: OnTarget = field(default_factory=OnTarget)
    weights: Mapping[Extrapolation | None, Weights] = field(default_factory=dict)

    @classmethod
    def none(cls, n_genes: int) -> MeanCalibration:
        """Decoded rates as they are."""
        nothing = np.zeros((0, n_genes), dtype=np.float32)
        return cls(nothing, Responses({}), ResidualGenes.none(n_genes))

    @property
    def is_none(self) -> bool:
        """Whether decoded rates stay as they are."""
        return len(self.slopes_FG) == 0 or not self.responses.curves

    def beyond(
        self,
        prior: EffectPrior,
        genes: Sequence[str],
        conditions: Sequence[Condition],
        positions: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> list[ResidualEffect]:
        """What is known of some conditions beyond the latent.

        Parameters
        ----------
        prior
            Of the same model.
        genes
            Names of the G genes.
        conditions
            Q conditions.
        positions
            Mean latent of the controls of contexts that were not in training.
        """
        seen = {part for c in prior.conditions for part in c.parts}
        residual_QG = self.residual_genes.estimate(prior, conditions, positions)
        old = [seen] * len(conditions)
        return _with_new_genes(residual_QG, genes, conditions, old, prior.elsewhere)

    def beyond_without(
        self, prior: EffectPrior, genes: Sequence[str], conditions: Sequence[Condition]
    ) -> list[ResidualEffect]:
        """The same of training conditions, each as if it had not been observed."""
        uses = Counter(part for c in prior.conditions for part in set(c.parts))
        residual_QG = self.residual_genes.leave_one_out(prior, conditions)
        seen = [{p for p, n in uses.items() if n > (p in c.parts)} for c in conditions]
        return _with_new_genes(residual_QG, genes, conditions, seen, prior.elsewhere)

    def offset(
        self,
        autoencoder: Autoencoder,
        stratum: StratumKey,
        kind: Extrapolation | None,
        before_NKD: Tensor,
        after_NKD: Tensor,
        beyond: ResidualEffect,
    ) -> np.ndarray:
        """What is added to the log rate of each gene, shape (G,).

        Parameters
        ----------
        autoencoder
            For its decoder.
        stratum
            Context and time.
        kind
            How far the condition is from training; None for another dose or time of what was seen.
        before_NKD, after_NKD
            Latents that stand in for control cells, and where the condition takes them.
        beyond
            What is known of the condition beyond the latent.
        """
        if self.is_none or torch.equal(before_NKD, after_NKD):
            log_factor_G = np.zeros(self.slopes_FG.shape[1])
        else:
            log_factor_G = mean_log_factor(autoencoder, before_NKD, after_NKD)
        shift_F = mean_shift(before_NKD, after_NKD)
        return self.offset_of(stratum, kind, log_factor_G, shift_F, beyond)

    def offset_of(
        self,
        stratum: StratumKey,
        kind: Extrapolation | None,
        log_factor_G: np.ndarray,
        shift_F: np.ndarray,
        beyond: ResidualEffect,
    ) -> np.ndarray:
        """The same from what was decoded already.

        Parameters
        ----------
        stratum, kind, beyond
            As of :meth:`offset`.
        log_factor_G, shift_F
            Mean over cells of the log ratio of decoded rates, and of the shift of the latent.
        """
        nothing_more = not len(beyond.new_genes) and not beyond.residual_G.any()
        if self.is_none or (nothing_more and not log_factor_G.any() and not shift_F.any()):
            return beyond.further.log_factor_G
        a, b, c = self._weights_of(kind)
        decoded_G, _ = self.responses.at(stratum, log_factor_G)
        wanted_G = a * decoded_G + b * (shift_F @ self.slopes_FG) + c * beyond.residual_G
        offset_G = np.zeros_like(wanted_G)
        for _ in range(ROUNDS):
            now_G, slope_G = self.responses.at(stratum, log_factor_G + offset_G)
            # Gauss-Newton, with a tie of the offset to zero.
            missing_G = wanted_G - now_G + slope_G * offset_G
            full_G = slope_G * missing_G / (slope_G**2 + LEAST_ANSWER**2)
            offset_G += (full_G - offset_G).clip(-1, 1)
        most = MOST_OFFSET if self.responses.knows(stratum) else MOST_STAND_IN
        offset_G = offset_G.clip(-most, most)
        offset_G[beyond.new_genes] += self.on_target.log_factor
        return offset_G + beyond.further.log_factor_G

    def _weights_of(self, kind: Extrapolation | None) -> Weights:
        # What a perturbation never seen is worth says nothing of one that was.
        known = (self.weights.get(one) for one in (kind, None, Extrapolation.SEEN))
        return next((weights for weights in known if weights is not None), START_WEIGHTS)

    def with_earlier(
        self, genes: Sequence[str], earlier: MeanCalibration, earlier_genes: Sequence[str]
    ) -> MeanCalibration:
        """Together with what an earlier training learned in the same latent.

        Contexts of both keep their responses, conditions of both their residual effects; weights
        and the change of the own gene stay where the later training could not try them. The line is
        the later training's, unless that had no perturbed cells. One for other genes is of no use.

        Parameters
        ----------
        genes, earlier_genes
            Of this calibration, and of the other.
        earlier
            The other.
        """
        place = {gene: i for i, gene in enumerate(earlier_genes)}
        if earlier.is_none or not all(gene in place for gene in genes):
            return self
        columns = [place[gene] for gene in genes]
        curves = {key: curve[:, columns] for key, curve in earlier.responses.curves.items()}
        responses = Responses({**curves, **self.responses.curves})
        residual_genes = self.residual_genes.with_earlier(
            genes, earlier.residual_genes, earlier_genes
        )
        if self.is_none:
            line_FG = earlier.slopes_FG[:, columns]
            return MeanCalibration(
                line_FG, responses, residual_genes, earlier.on_target, earlier.weights
            )
        on_target = earlier.on_target if self.on_target == OnTarget() else self.on_target
        weights = {**earlier.weights, **self.weights}
        return MeanCalibration(self.slopes_FG, responses, residual_genes, on_target, weights)

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {
            "weights": [[kind and str(kind), *own] for kind, own in self.weights.items()],
            "responses": self.responses.to_config(),
            "remainder": self.residual_genes.to_config(),
            "own_gene": asdict(self.on_target),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        if self.is_none:
            return {}
        beyond = {
            f"remainder.{name}": array for name, array in self.residual_genes.arrays().items()
        }
        return {"readout": short(self.slopes_FG), **self.responses.arrays(), **beyond}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], n_genes: int
    ) -> MeanCalibration:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote; older models have none.

        Raises
        ------
        ValueError
            If the arrays do not fit the genes.
        """
        if "readout" not in arrays:
            return cls.none(n_genes)
        if arrays["readout"].ndim != 2 or arrays["readout"].shape[1] != n_genes:
            raise ValueError("its readout does not fit its genes")
        weights = {
            None if kind is None else Extrapolation(kind): (float(a), float(b), float(c))
            for kind, a, b, c in config["weights"]
        }
        responses = Responses.from_config(config["responses"], arrays, n_genes)
        beyond = {
            name.removeprefix("remainder."): array
            for name, array in arrays.items()
            if name.startswith("remainder.")
        }
        residual_genes = ResidualGenes.from_config(config["remainder"], beyond, n_genes)
        on_target = OnTarget(**config["own_gene"])
        return cls(
            arrays["readout"].astype(np.float32, copy=False),
            responses,
            residual_genes,
            on_target,
            weights,
        )


def mean_shift(before_NKD: Tensor, after_NKD: Tensor) -> np.ndarray:
    """Mean over cells of the shift of the latent, shape (F,)."""
    shift_F: np.ndarray = (after_NKD - before_NKD).flatten(1).double().mean(0).numpy()
    return shift_F


def mean_log_factor(autoencoder: Autoencoder, before_NKD: Tensor, after_NKD: Tensor) -> np.ndarray:
    """Mean over cells of the log ratio of decoded rates, shape (G,)."""
    with torch.no_grad():
        before_NG, after_NG = (
            autoencoder.decoder.log_rate(z.flatten(1)) for z in (before_NKD, after_NKD)
        )
    return (after_NG - before_NG).double().mean(0).numpy()


def _with_new_genes(
    residual_QG: np.ndarray,
    genes: Sequence[str],
    conditions: Sequence[Condition],
    seen: Sequence[Set[str]],
    elsewhere: Elsewhere,
) -> list[ResidualEffect]:
    column = {gene: g for g, gene in enumerate(genes)}
    found = []
    for residual_G, condition, old in zip(residual_QG, conditions, seen, strict=True):
        parts = [part for part in condition.parts if part not in old]
        further = elsewhere.further(parts, genes)
        new = [column[part] for part in parts if part in column]
        new = [g for g in new if not further.known_G[g]]
        found.append(ResidualEffect(residual_G, np.array(new, dtype=np.int64), further))
    return found
