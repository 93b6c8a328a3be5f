"""What a knock-out leaves of its own gene: where its mean ends up, and which cells keep it.

Of what a perturbation does the effect model sees little where it is weak, and its own gene is drawn
to none with all the others; but a knock-out's own gene is expected to fall, and by how much its
counts tell (:mod:`celldit.calibration.own_gene.fit`). They fall unlike from cell to cell, too: a
share u of the cells keeps the gene, as the cut failed or was mended in frame, and the others lose
nearly all of it. With c the mean log expression at a log factor of the rate, and x that which
brings the mean of all cells where it is known to be, the others get the y of

    u c(kept) + (1 - u) c(y) = c(x),   c(kept) = 0,

so that the mean is the same, and the share of zeros that of measured cells. Which cells keep it
belongs to the cell, the condition and the seed. Cells that do not respond
(:mod:`celldit.calibration.responders.shares`) keep it already and count for u.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from celldit.calibration.reference_controls import Change
from celldit.calibration.responses import LOG_FACTORS, Responses
from celldit.conditions import Condition
from celldit.data.symbols import columns_of

# Of mean log expression; a gene that falls less is left as it is.
LEAST_FALL = 1e-3
# Log factor beyond which nothing is left.
MOST_LOST = 5.0


class OwnGene(NamedTuple):
    """Share of cells that keep the perturbed gene, and log factor of its rate in the others."""

    kept: float
    log_factor: float


@dataclass(frozen=True)
class OwnGenes:
    """Those of perturbations.

    Attributes
    ----------
    of
        Of training, where the gene is measured and falls.
    usual
        Share of cells that keep the gene of one that training has not seen.
    """

    of: Mapping[str, OwnGene] = field(default_factory=dict)
    usual: float = 0.0

    def targets(
        self, conditions: Sequence[Condition], genes: Sequence[str], responses: Responses
    ) -> list[tuple[Target, ...]]:
        """Genes that conditions knock out; with doses nothing is known."""
        if self == OwnGenes():
            return [()] * len(conditions)
        column = columns_of((p for c in conditions for p in c.parts), genes)
        found = []
        for condition in conditions:
            targets = []
            for part, name in enumerate(condition.parts):
                if name not in column or condition.doses is not None:
                    continue
                gene, own, change = column[name], self.of.get(name), None
                if own is not None:
                    curve_P = responses.curve(condition.stratum)[:, gene]
                    alone = np.interp(own.log_factor, LOG_FACTORS, curve_P)
                    change = float((1 - own.kept) * alone)
                kept = self.usual if own is None else own.kept
                targets.append(Target(part, gene, kept, change, len(condition.parts) == 1))
            found.append(tuple(targets))
        return found

    @property
    def some_kept(self) -> bool:
        """Whether any cells keep their gene."""
        return self.usual > 0 or any(own.kept > 0 for own in self.of.values())

    def with_earlier(self, earlier: OwnGenes) -> OwnGenes:
        """Together with those of an earlier training."""
        return OwnGenes({**earlier.of, **self.of}, self.usual or earlier.usual)

    def to_config(self) -> dict[str, Any]:
        """For JSON."""
        return {"usual": self.usual, "of": [[part, *own] for part, own in self.of.items()]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> OwnGenes:
        """Rebuild what :meth:`to_config` wrote.

        Raises
        ------
        ValueError
            If a share is none.
        """
        of = {str(p): OwnGene(float(kept), float(log)) for p, kept, log in config.get("of", [])}
        found = cls(of, float(config.get("usual", 0.0)))
        if not all(0 <= kept < 1 for kept in (found.usual, *(own.kept for own in of.values()))):
            raise ValueError("a share of cells that keep their gene is not between 0 and 1")
        return found


class Split(NamedTuple):
    """Log factors of one gene, in cells that keep it and in the others, and the share of these.

    `part` is the place of the gene among the parts of the perturbation.
    """

    part: int
    gene: int
    kept: float
    log_kept: float
    log_lost: float


class Target(NamedTuple):
    """A gene that a condition knocks out.

    Attributes
    ----------
    part, gene
        Its place among the parts of the perturbation, and its column.
    kept
        Share of cells that keep it.
    change
        Of its mean log expression over all cells; None where nobody has measured it.
    alone
        Whether nothing else is done to it.
    """

    part: int
    gene: int
    kept: float
    change: float | None
    alone: bool

    def lower(self, offset_G: np.ndarray, effect: Change, share: float) -> None:
        """Put the gene where it was measured; in combinations no higher than that.

        Parameters
        ----------
        offset_G
            Log factors of all genes, changed in place.
        effect, share
            What happens to the share of the cells that responds.
        """
        if self.change is not None:
            offset = max(effect.factor(self.gene, self.change / share), -MOST_LOST)
            offset_G[self.gene] = offset if self.alone else min(offset, offset_G[self.gene])

    def split(self, offset_G: np.ndarray, effect: Change, share: float) -> Split | None:
        """The same mean log expression, with the gene kept by some; None where it does not fall.

        Cells that do not respond keep it already.
        """
        kept = 1 - (1 - self.kept) / share
        value, bottom = effect.at(offset_G)[0][self.gene], effect.curve_PG[0, self.gene]
        if kept <= 0 or value >= -LEAST_FALL or bottom >= -LEAST_FALL:
            return None
        kept = min(kept, 1 - value / bottom)
        log_kept, log_lost = (effect.factor(self.gene, v) for v in (0.0, value / (1 - kept)))
        return Split(self.part, self.gene, kept, log_kept, log_lost)
