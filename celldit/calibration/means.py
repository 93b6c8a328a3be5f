"""Where the mean log expression of counterfactual cells should end up, and how to get it there.

Predicted cells of a condition that was seen are held to the mean that the effect model gives it: a
straight line from its shift of the latent to log expression (L), and what the latent has no room
for, such as the perturbed gene's own transcripts (R, :mod:`celldit.effects.residual_genes`).

Of other conditions nobody has measured the mean. What decoded rates make of the move (D,
:mod:`celldit.calibration.reference_controls`) knows large effects best, but loses part of an effect
where counts are few; the line misses what bends. Training conditions that were predicted from the
others tell how to weigh the three,

    wanted = a D + b L + c R,   a, b >= 0,   a + b <= 1.2,   0 <= c <= 1,

by least squares over genes and conditions, for each kind of extrapolation. Rates of a condition are
then multiplied, gene by gene and alike in all its cells, by what brings its controls there. A gene
that is knocked out ends where its own counts say, and not alike in all cells
(:mod:`celldit.calibration.own_gene.kept`); genes that are perturbed for the first time are
multiplied by what perturbing a gene does to it on average
(:mod:`celldit.calibration.own_gene.on_target`). Where a mean was seen in few cells the log factor
is drawn to none by the ratio of its noise to what decoded rates are usually off by.

Measured beside decoded rates alone in ``docs/results/aim.csv``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from celldit.calibration.own_gene.kept import OwnGenes, Target
from celldit.calibration.own_gene.on_target import OnTarget
from celldit.calibration.reference_controls import MAX_OFFSET, Change
from celldit.calibration.responses import Responses
from celldit.conditions import Condition
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.strata import StratumKey
from celldit.data.symbols import columns_of
from celldit.effects import EffectPrior
from celldit.effects.residual_genes import ResidualGenes
from celldit.effects.tables.elsewhere import Elsewhere, Further
from celldit.latent.autoencoder import short

# Weights before anything is known.
START_WEIGHTS = (0.5, 0.5, 1.0)
SEEN_WEIGHTS = (0.0, 1.0, 1.0)
# Where the states of other contexts stand in: a gene that is silent there and not here would be
# pushed as far as silence takes.
MOST_STAND_IN = 0.5


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
    noise
        Sampling variance of its mean where cells vary by one; 0 for what was not seen.
    targets
        What is known of the genes that are knocked out.
    """

    residual_G: np.ndarray
    new_genes: np.ndarray
    further: Further
    noise: float = 0.0
    targets: tuple[Target, ...] = ()


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
    variance_G
        Of log expression between cells of a condition; None in models of formats 1 and 2, which
        say what they said.
    on_target
        What perturbing a gene does to it.
    weights
        a, b and c by kind of extrapolation beyond what was seen; under None those of all conditions
        left out whose perturbations were seen, for another dose or time, and for kinds that could
        not be tried. Models of formats 1 and 2 have some for what was seen.
    shares
        Share of the cells that respond (:mod:`celldit.calibration.responders.shares`).
    own_genes
        What knock-outs leave of their own gene; nothing is known in models from before.
    """

    slopes_FG: np.ndarray
    responses: Responses
    residual_genes: ResidualGenes
    variance_G: np.ndarray | None = None
    on_target: OnTarget = field(default_factory=OnTarget)
    weights: Mapping[Extrapolation | None, Weights] = field(default_factory=dict)
    shares: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    own_genes: OwnGenes = field(default_factory=OwnGenes)

    @classmethod
    def none(cls, n_genes: int, responses: Responses | None = None) -> MeanCalibration:
        """Decoded rates as they are."""
        nothing = np.zeros((0, n_genes), dtype=np.float32)
        residual_genes = ResidualGenes.none(n_genes)
        if responses is None:
            return cls(nothing, Responses({}), residual_genes)
        return cls(nothing, responses, residual_genes, np.zeros(n_genes, dtype=np.float32))

    @property
    def is_none(self) -> bool:
        """Whether decoded rates stay as they are."""
        return len(self.slopes_FG) == 0 or not self.responses.curves

    def residual_effects(
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
        found = _with_new_genes(residual_QG, genes, conditions, old, prior.elsewhere)
        noise = prior.sampling_noise
        targets = self.own_genes.targets(conditions, genes, self.responses)
        return [
            one._replace(noise=noise.get(condition, 0.0), targets=own)
            for one, condition, own in zip(found, conditions, targets, strict=True)
        ]

    def left_out_residual_effects(
        self, prior: EffectPrior, genes: Sequence[str], conditions: Sequence[Condition]
    ) -> list[ResidualEffect]:
        """The same of training conditions, each as if it had not been observed."""
        uses = Counter(part for c in prior.conditions for part in set(c.parts))
        residual_QG = self.residual_genes.leave_one_out(prior, conditions)
        seen = [{p for p, n in uses.items() if n > (p in c.parts)} for c in conditions]
        return _with_new_genes(residual_QG, genes, conditions, seen, prior.elsewhere)

    def offset(
        self,
        kind: Extrapolation | None,
        change: Change,
        effect_F: np.ndarray,
        residual: ResidualEffect,
        *,
        known: bool = True,
        share: float = 1.0,
        further: Change | None = None,
    ) -> np.ndarray:
        """What is added to the log rate of each gene, shape (G,).

        Parameters
        ----------
        kind
            How far the condition is from training; None for another dose or time of what was seen.
        change
            What the move of its controls makes of their mean log expression.
        effect_F
            The effect model's shift of the latent.
        residual
            What is known of the condition beyond the latent.
        known
            Whether training knew the context.
        share, further
            Where a share of the cells responds, and goes so much further that the mean of all is
            the same: that share, and what the move of these makes of theirs. Then the result is
            for them.
        """
        nothing_more = not len(residual.new_genes) and not residual.residual_G.any()
        nothing_more = nothing_more and not residual.targets
        if self.is_none or (nothing_more and not change.shift_F.any()):
            return residual.further.log_factor_G
        a, b, c = self._weights_of(kind)
        shift_F, noise_G = change.shift_F, None
        if kind is Extrapolation.SEEN and self.variance_G is not None:
            shift_F, noise_G = effect_F, self.variance_G * residual.noise
        straight_G = shift_F @ self.slopes_FG
        wanted_G = a * change.decoded_G + b * straight_G + c * residual.residual_G
        most = MAX_OFFSET if known else MOST_STAND_IN
        if further is None:
            offset_G = change.offset(wanted_G, noise_G, most)
        else:
            noise_G = None if noise_G is None else noise_G / share**2
            offset_G = further.offset(wanted_G / share, noise_G, most)
        offset_G[residual.new_genes] += self.on_target.log_factor
        for target in residual.targets:
            target.lower(offset_G, change if further is None else further, share)
        return offset_G + residual.further.log_factor_G

    def _weights_of(self, kind: Extrapolation | None) -> Weights:
        if kind is Extrapolation.SEEN:
            return self.weights.get(kind, SEEN_WEIGHTS)
        # What a perturbation never seen is worth says nothing of one that was.
        usual = self.weights.get(Extrapolation.SEEN, START_WEIGHTS)
        return self.weights.get(kind, self.weights.get(None, usual))

    def with_earlier(self, earlier: MeanCalibration, column_G: np.ndarray) -> MeanCalibration:
        """Together with what an earlier training learned in the same latent.

        Contexts of both keep their responses, conditions of both their residual effects; weights
        and the change of the own gene stay where the later training could not try them. The line is
        the later training's, unless that had no perturbed cells. `column_G` are the columns of
        these genes among the earlier ones.
        """
        if earlier.is_none:
            return self
        curves = {key: curve[:, column_G] for key, curve in earlier.responses.curves.items()}
        responses = Responses({**curves, **self.responses.curves})
        residual_genes = self.residual_genes.with_earlier(earlier.residual_genes, column_G)
        if self.is_none:
            return replace(
                earlier,
                slopes_FG=earlier.slopes_FG[:, column_G],
                responses=responses,
                residual_genes=residual_genes,
                variance_G=None if earlier.variance_G is None else earlier.variance_G[column_G],
            )
        on_target = earlier.on_target if self.on_target == OnTarget() else self.on_target
        return replace(
            self,
            responses=responses,
            residual_genes=residual_genes,
            on_target=on_target,
            weights={**earlier.weights, **self.weights},
            shares={**earlier.shares, **self.shares},
            own_genes=self.own_genes.with_earlier(earlier.own_genes),
        )

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {
            "weights": [[kind and str(kind), *own] for kind, own in self.weights.items()],
            "responses": self.responses.to_config(),
            "remainder": self.residual_genes.to_config(),
            "own_gene": asdict(self.on_target),
            "responding": [[list(parts), share] for parts, share in self.shares.items()],
            "kept": self.own_genes.to_config(),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        own = self.responses.arrays()
        if self.variance_G is not None:
            own["variance"] = short(self.variance_G)
        if self.is_none:
            return own
        remainder = {
            f"remainder.{name}": array for name, array in self.residual_genes.arrays().items()
        }
        return {"readout": short(self.slopes_FG), **own, **remainder}

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
        variance_G = arrays.get("variance")
        if variance_G is not None and variance_G.shape != (n_genes,):
            raise ValueError("its variances do not fit its genes")
        responses = Responses.from_config(config.get("responses", []), arrays, n_genes)
        if "readout" not in arrays:
            return cls.none(n_genes, None if variance_G is None else responses)
        if arrays["readout"].ndim != 2 or arrays["readout"].shape[1] != n_genes:
            raise ValueError("its readout does not fit its genes")
        weights = {
            None if kind is None else Extrapolation(kind): (float(a), float(b), float(c))
            for kind, a, b, c in config["weights"]
        }
        remainder = {
            name.removeprefix("remainder."): array
            for name, array in arrays.items()
            if name.startswith("remainder.")
        }
        residual_genes = ResidualGenes.from_config(config["remainder"], remainder, n_genes)
        # Older models took all cells to respond.
        said = config.get("responding", [])
        shares = {tuple(map(str, parts)): float(share) for parts, share in said}
        if not all(0 < share <= 1 for share in shares.values()):
            raise ValueError("a share of cells that respond is not between 0 and 1")
        return cls(
            arrays["readout"].astype(np.float32, copy=False),
            responses,
            residual_genes,
            None if variance_G is None else variance_G.astype(np.float32),
            OnTarget(**config["own_gene"]),
            weights,
            shares,
            OwnGenes.from_config(config.get("kept", {})),
        )


def _with_new_genes(
    residual_QG: np.ndarray,
    genes: Sequence[str],
    conditions: Sequence[Condition],
    seen: Sequence[Set[str]],
    elsewhere: Elsewhere,
) -> list[ResidualEffect]:
    new_parts = [
        [part for part in condition.parts if part not in old]
        for condition, old in zip(conditions, seen, strict=True)
    ]
    column = columns_of((part for parts in new_parts for part in parts), genes)
    found = []
    for residual_G, parts in zip(residual_QG, new_parts, strict=True):
        further = elsewhere.further(parts, genes)
        new = [column[part] for part in parts if part in column]
        new = [g for g in new if not further.known_G[g]]
        found.append(ResidualEffect(residual_G, np.array(new, dtype=np.int64), further))
    return found
