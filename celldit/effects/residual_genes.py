"""What measured effects hold beyond the latent, gene by gene.

A latent of some fifty dimensions has no room for what happens to one gene alone, and that may be
what matters most: a knocked-out gene's own transcripts. The measured change of mean log expression
of a condition less what a line from the latent makes of its measured shift,

    r_c = (ȳ_c - ȳ_control) - (z̄_c - z̄_control) W,

is mostly noise of known size. The Gaussian process of the effect prior
(:mod:`celldit.effects.prior`), the same kernel over conditions and the same closed forms, tells the
rest of it, with a strength λ and a shared variance μ of each gene's own
(:mod:`celldit.calibration.fit_residual_genes`). Most genes have nothing beyond the latent and are
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from celldit.conditions.condition import Condition
from celldit.conditions.strata import StratumKey
from celldit.effects.other_outputs import OtherOutputs
from celldit.effects.posterior import Observed
from celldit.effects.prior import EffectPrior


@dataclass(frozen=True, eq=False)
class ResidualGenes:
    """Observed residual effects of C conditions in the H genes that have any.

    Attributes
    ----------
    conditions
        The C conditions.
    n_genes
        G, of which the H are some.
    gene_H
        Their columns.
    shifts_CH
        Residual effects in units of `scatter_H`, float16, of which each gene has 255 different ones
        (:func:`in_steps`).
    noise_C
        Variance of these.
    scatter_H
        Standard deviation between cells of a condition of what the line leaves over.
    signal_H, common_H
        λ and μ of each gene.
    """

    conditions: tuple[Condition, ...]
    n_genes: int
    gene_H: np.ndarray
    shifts_CH: np.ndarray
    noise_C: np.ndarray
    scatter_H: np.ndarray
    signal_H: np.ndarray
    common_H: np.ndarray

    @classmethod
    def none(cls, n_genes: int) -> ResidualGenes:
        """Nothing beyond the latent."""
        empty = np.zeros(0)
        return cls((), n_genes, np.zeros(0, np.int64), np.zeros((0, 0), np.float16), *[empty] * 4)

    @property
    def is_none(self) -> bool:
        """Whether no gene has any."""
        return len(self.gene_H) == 0

    def estimate(
        self,
        prior: EffectPrior,
        conditions: Sequence[Condition],
        positions: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Expected residual effect of any conditions, shape (Q, G); a control has none.

        The prior of the same model gives the kernel; positions are those of
        :meth:`EffectPrior.estimate`.
        """
        if self.is_none or not conditions:
            return np.zeros((len(conditions), self.n_genes))
        return self._in_all_genes(self._observed(prior).mean(conditions, positions))

    def leave_one_out(self, prior: EffectPrior, conditions: Sequence[Condition]) -> np.ndarray:
        """Expected residual effect of Q conditions, each without its own cells, shape (Q, G).

        What was not observed has no cells to leave out.
        """
        if self.is_none or not conditions:
            return np.zeros((len(conditions), self.n_genes))
        estimate_QG = self.estimate(prior, conditions)
        row_of = {c: i for i, c in enumerate(self.conditions)}
        at = [q for q, c in enumerate(conditions) if c in row_of]
        rows = [row_of[conditions[q]] for q in at]
        estimate_QG[at] = self._in_all_genes(self._observed(prior).leave_one_out()[rows])
        return estimate_QG

    def with_earlier(self, earlier: ResidualGenes, column_G: np.ndarray) -> ResidualGenes:
        """Together with conditions that only an earlier training in the same latent observed.

        `column_G` are the columns of these genes among the earlier ones.
        """
        if earlier.is_none:
            return self
        aligned = earlier._of_genes(column_G)
        if self.is_none:
            return aligned
        new = [i for i, c in enumerate(aligned.conditions) if c not in set(self.conditions)]
        gene_H = np.union1d(self.gene_H, aligned.gene_H)
        own, other = self._at(gene_H), aligned._at(gene_H)
        # Where only one of them found anything, its own observations and strengths hold.
        first_H = own.scatter_H > 0
        row_of = {c: i for i, c in enumerate(aligned.conditions)}
        for i, condition in enumerate(self.conditions):
            if condition in row_of:
                own.shifts_CH[i, ~first_H] = other.shifts_CH[row_of[condition], ~first_H]
        scatter_H = np.where(first_H, own.scatter_H, other.scatter_H)
        ratio_H = other.scatter_H / scatter_H
        return ResidualGenes(
            (*self.conditions, *(aligned.conditions[i] for i in new)),
            self.n_genes,
            gene_H,
            np.concatenate([own.shifts_CH, (other.shifts_CH[new] * ratio_H).astype(np.float16)]),
            np.concatenate([self.noise_C, aligned.noise_C[new]]),
            scatter_H,
            np.where(first_H, own.signal_H, other.signal_H),
            np.where(first_H, own.common_H, other.common_H),
        )

    def _of_genes(self, column_G: np.ndarray) -> ResidualGenes:
        """In other genes, each named by its column here."""
        row_of = {int(gene): h for h, gene in enumerate(self.gene_H)}
        kept = [(g, row_of[c]) for g, c in enumerate(column_G.tolist()) if c in row_of]
        gene_H, row_H = np.array(kept, dtype=np.int64).reshape(-1, 2).T
        aligned = self._each_gene(lambda values: values[..., row_H])
        return replace(aligned, n_genes=len(column_G), gene_H=gene_H)

    def _at(self, gene_H: np.ndarray) -> ResidualGenes:
        """The same with zeros in further genes."""
        at = np.searchsorted(gene_H, self.gene_H)

        def spread(values: np.ndarray) -> np.ndarray:
            wide = np.zeros((*values.shape[:-1], len(gene_H)), dtype=values.dtype)
            wide[..., at] = values
            return wide

        return replace(self._each_gene(spread), gene_H=gene_H)

    def _each_gene(self, of: Callable[[np.ndarray], np.ndarray]) -> ResidualGenes:
        """The same with all that is kept by gene, its last axis, changed alike."""
        return replace(
            self,
            shifts_CH=of(self.shifts_CH),
            scatter_H=of(self.scatter_H),
            signal_H=of(self.signal_H),
            common_H=of(self.common_H),
        )

    def _observed(self, prior: EffectPrior) -> OtherOutputs:
        unseen = prior.of_unseen
        if not any(known is unseen.observed for known, _ in self._decomposed):
            seen = self.conditions, self.noise_C, self.shifts_CH.astype(np.float64)
            outputs = OtherOutputs.of(unseen, *seen, self.signal_H, self.common_H)
            self._decomposed[:] = [(unseen.observed, outputs)]
        outputs = self._decomposed[0][1]
        return replace(outputs, prior=unseen.without_tables)

    @cached_property
    def _decomposed(self) -> list[tuple[Observed, OtherOutputs]]:
        """What was asked of last, since its decomposition is cubic in the conditions."""
        return []

    def _in_all_genes(self, of_QH: np.ndarray) -> np.ndarray:
        of_QG = np.zeros((len(of_QH), self.n_genes))
        of_QG[:, self.gene_H] = of_QH * self.scatter_H
        return of_QG

    def to_config(self) -> list[list[Any]]:
        """The conditions, for JSON."""
        return [c.to_list() for c in self.conditions]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        if self.is_none:
            return {}
        steps_CH, unit_H = _steps(self.shifts_CH)
        stored = {"steps": steps_CH, "step": unit_H}
        # Models of earlier versions, and what fine-tuning joined, lie between the steps.
        if not np.array_equal(_of_steps(steps_CH, unit_H), self.shifts_CH):
            stored = {"shifts": self.shifts_CH}
        return {
            "genes": self.gene_H,
            **stored,
            "noise": self.noise_C,
            "scatter": self.scatter_H,
            "signal": self.signal_H,
            "common": self.common_H,
        }

    @classmethod
    def from_config(
        cls, conditions: Sequence[list[Any]], arrays: Mapping[str, np.ndarray], n_genes: int
    ) -> ResidualGenes:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote.

        Raises
        ------
        ValueError
            If conditions, arrays and genes do not fit together.
        """
        if not arrays:
            return cls.none(n_genes)
        gene_H = arrays["genes"]
        stored = "shifts" in arrays
        shifts_CH = arrays["shifts"] if stored else _of_steps(arrays["steps"], arrays["step"])
        per_gene = [arrays[name] for name in ("scatter", "signal", "common")]
        if (
            shifts_CH.shape != (len(conditions), len(gene_H))
            or arrays["noise"].shape != (len(conditions),)
            or any(values.shape != gene_H.shape for values in per_gene)
            or (len(gene_H) and not 0 <= gene_H.min() <= gene_H.max() < n_genes)
        ):
            raise ValueError("its residual effects fit neither its conditions nor its genes")
        known = tuple(Condition.from_list(entry) for entry in conditions)
        return cls(known, n_genes, gene_H, shifts_CH, arrays["noise"], *per_gene)


def in_steps(shifts_CH: np.ndarray) -> np.ndarray:
    """Residual effects rounded to 127ths of each gene's largest, far below their noise, float16."""
    return _of_steps(*_steps(shifts_CH))


def _steps(shifts_CH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps, int8, and how large those of each gene are, float32, (H,)."""
    largest_H = np.abs(shifts_CH.astype(np.float32)).max(axis=0, initial=0)
    unit_H = (largest_H / 127).astype(np.float32)
    steps_CH = np.rint(shifts_CH / np.where(unit_H > 0, unit_H, 1))
    return steps_CH.astype(np.int8), unit_H


def _of_steps(steps_CH: np.ndarray, unit_H: np.ndarray) -> np.ndarray:
    return (steps_CH.astype(np.float32) * unit_H).astype(np.float16)
