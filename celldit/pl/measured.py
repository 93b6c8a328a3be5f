"""What the figures compare: measured, predicted and control cells of one perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anndata as ad
import numpy as np
from scipy import sparse

from celldit.arguments import text_list
from celldit.data.fields import Fields
from celldit.data.labels.labels import canonical
from celldit.errors import InputError, UnknownNameError, examples
from celldit.evaluation.expression import Expression, align_genes, measured_cells, read_predicted


@dataclass(frozen=True, eq=False)
class Pair:
    """Measured cells, controls among them, and predicted ones, in log expression.

    They have the same genes; `fields` are those of the measured cells.
    """

    measured: Expression
    predicted: Expression
    fields: Fields

    @property
    def genes(self) -> tuple[str, ...]:
        """Names of the G genes."""
        return self.measured.genes

    def chosen(self, perturbation: str | Sequence[str] | None) -> list[str]:
        """Perturbations to draw: the given one, or those both measured and predicted.

        UnknownNameError if one is not predicted; InputError if no perturbation is both measured and
        predicted.
        """
        fields = self.fields
        available = sorted(set(self.predicted.perturbations) - {fields.control})
        measured = set(self.measured.perturbations)
        if perturbation is None:
            both = [p for p in available if p in measured]
            if not both:
                raise InputError(
                    f"None of the predicted perturbations ({examples(available)}) was measured in "
                    "adata; pass the measured cells of one of them."
                )
            return both
        selection = text_list(perturbation, "perturbation")
        if not selection:
            raise InputError("perturbation=[] names none; leave it out to draw all of them.")
        labels = [canonical(p, fields.perturbation_sep, fields.control) for p in selection]
        for label in labels:
            if label not in available:
                raise UnknownNameError.among("perturbation in predicted", label, available)
            if label not in measured:
                raise InputError(f"adata has no measured cell with the perturbation {label!r}.")
        return labels

    def contexts(self, perturbation: str) -> list[str]:
        """Contexts with predicted, measured and control cells. InputError if there is none."""
        measured = self.measured.conditions()
        of_label = [
            context
            for label, context in self.predicted.conditions()
            if label == perturbation
            and (label, context) in measured
            and (self.fields.control, context) in measured
        ]
        if not of_label:
            raise InputError(
                f"No context has predicted, measured and control cells of {perturbation!r}; adata "
                "must hold measured cells with that perturbation and controls of the same contexts."
            )
        return of_label


def read_pair(adata: ad.AnnData, predicted: ad.AnnData) -> Pair:
    """Read measured cells and a prediction of the same genes; genes are brought to one order.

    InputError if `adata` was not set up, or the genes differ.
    """
    fields = Fields.from_anndata(adata)
    if fields.perturbation_key is None:
        raise InputError(
            "adata was set up without perturbation_key, so there is no measured perturbation to "
            "compare with; call CellDiT.setup_anndata(adata, perturbation_key=...)."
        )
    measured = Expression.of(measured_cells(adata, fields, "adata"))
    predicted = align_genes(predicted, measured.genes, "predicted", "adata")
    largest = float(measured.log.max()) if measured.n_cells else 0.0
    return Pair(measured, read_predicted(predicted, fields, largest), fields)


def shifts(pair: Pair, perturbation: str) -> tuple[np.ndarray, np.ndarray]:
    """Measured and predicted mean shift from the measured controls, each of shape (G,).

    Contexts are averaged by their number of measured cells.
    """
    measured, predicted = pair.measured.conditions(), pair.predicted.conditions()
    contexts = pair.contexts(perturbation)
    weights = np.array([len(measured[perturbation, c]) for c in contexts], dtype=np.float64)
    shift_2G = np.zeros((2, len(pair.genes)))
    for context, weight in zip(contexts, weights / weights.sum(), strict=True):
        base_G = mean_of(pair.measured, measured[pair.fields.control, context])
        own_G = mean_of(pair.measured, measured[perturbation, context])
        guess_G = mean_of(pair.predicted, predicted[perturbation, context])
        shift_2G += weight * (np.stack([own_G, guess_G]) - base_G)
    return shift_2G[0], shift_2G[1]


def mean_of(cells: Expression, rows: np.ndarray) -> np.ndarray:
    """Mean log expression, float64, shape (G,)."""
    mean = cells.log[rows].mean(axis=0, dtype=np.float64)
    return np.asarray(mean).ravel()


def columns_of(cells: Expression, rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Log expression of some genes in some cells, shape (len(rows), len(genes))."""
    some = cells.log[rows][:, genes]
    return np.asarray(some.toarray() if sparse.issparse(some) else some)
