"""What the challenge's measures are computed on: counts of one context."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.data.cells import Cells
from celldit.data.checks import check_anndata
from celldit.data.fields import Fields
from celldit.data.labels.labels import parts
from celldit.errors import InputError, UnknownNameError, examples
from celldit.evaluation.challenge.groups import CountGroups
from celldit.evaluation.expression import truth_fields

__all__ = ["COUNT_LAYERS", "Panel", "read_panels"]

#: Layers of a prediction that hold counts, the first that is there is read; else ``X``.
COUNT_LAYERS = ("counts", "edited_counts")
#: Fewer cells of a perturbation are not scored.
MIN_CELLS = 10


@dataclass(frozen=True, eq=False)
class Panel:
    """Predicted, measured and control cells of one context.

    Parameters
    ----------
    predicted, real
        The same perturbations, those that were predicted and measured with cells enough.
    controls
        Measured control cells, one group.
    targets
        Positions of the genes that each perturbation acts on, as its label names them.
    genes
        G names.
    control_label
        As the data name it.
    """

    predicted: CountGroups
    real: CountGroups
    controls: CountGroups
    targets: dict[str, np.ndarray]
    genes: tuple[str, ...]
    control_label: str


@dataclass(frozen=True, eq=False)
class _Counts:
    """Counts with the condition of each cell."""

    counts: sparse.csr_matrix
    perturbations: np.ndarray
    contexts: np.ndarray

    def of(self, context: str, labels: tuple[str, ...]) -> CountGroups:
        rows = np.flatnonzero((self.contexts == context) & np.isin(self.perturbations, labels))
        return CountGroups.of(self.counts[rows], self.perturbations[rows])

    def sizes(self, context: str) -> dict[str, int]:
        found = pd.Series(self.perturbations[self.contexts == context]).value_counts()
        return {str(label): int(n) for label, n in found.items()}


def read_panels(
    predicted: ad.AnnData,
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    least: int = 2,
) -> tuple[dict[str, Panel], dict[str, str]]:
    """Read the counts of every context.

    Parameters
    ----------
    predicted
        Counts in ``layers["counts"]``, or in ``X``; the truth's genes in any order.
    truth, control
        As in :func:`celldit.evaluation.evaluate`.
    least
        Perturbations that a context needs.

    Returns
    -------
    panels
        By context.
    left_out
        Reason of each condition that is not scored.

    Raises
    ------
    InputError
        If counts are missing or not counts, a context has no control cells, or no context has
        enough perturbations.
    UnknownNameError
        If a column or a perturbation is not known.
    """
    for adata, name in ((predicted, "predicted"), (truth, "truth")):
        check_anndata(adata, name)
    fields = truth_fields(truth, control)
    if fields.perturbation_key is None:
        raise InputError(
            "The truth was set up without a perturbation_key, so it has no conditions to score; "
            "call celldit.CellDiT.setup_anndata(truth, perturbation_key=...)."
        )
    genes = tuple(str(g) for g in truth.var_names)
    measured = _read(truth, fields, genes, "truth")
    base = measured if control is None else _read(control, fields, genes, "control")
    guess = _read_predicted(predicted, fields, genes)
    unknown = sorted(set(guess.perturbations) - set(measured.perturbations) - {fields.control})
    if unknown:
        raise UnknownNameError.among(
            "perturbation in predicted, not in truth:",
            unknown[0],
            sorted(set(measured.perturbations) - {fields.control}),
        )
    panels: dict[str, Panel] = {}
    left_out: dict[str, str] = {}
    few: list[str] = []
    for context in sorted(map(str, set(guess.contexts))):
        labels, reasons = _scored(guess, measured, context, fields.control)
        left_out.update(reasons)
        if len(labels) < least:
            few.append(f"{context or 'the panel'}: {len(labels)}")
            continue
        controls = base.of(context, (fields.control,))
        if controls.counts.shape[0] < MIN_CELLS:
            raise InputError(
                f"{context or 'The experiment'} has {controls.counts.shape[0]} measured control "
                f"cells, and the measures need {MIN_CELLS}; pass more of them as control."
            )
        panels[context] = Panel(
            guess.of(context, labels),
            measured.of(context, labels),
            CountGroups.single(controls.counts, fields.control),
            _targets(labels, genes, fields),
            genes,
            fields.control,
        )
    if not panels:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InputError(
            f"No context has {least} perturbations that were predicted and measured with "
            f"{MIN_CELLS} cells each ({examples(few)}{'; ' + why if why else ''}); the score of a "
            "panel needs several perturbations, so use metrics= for single ones."
        )
    left_out.update({f"context {name}": "too few perturbations" for name in few})
    return panels, left_out


def _scored(
    guess: _Counts, measured: _Counts, context: str, control: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Perturbations with cells enough on both sides, and why others are left out."""
    found, expected = guess.sizes(context), measured.sizes(context)
    kept, reasons = [], {}
    for label in sorted(set(found) - {control}):
        n, m = found[label], expected.get(label, 0)
        if min(n, m) >= MIN_CELLS:
            kept.append(label)
        else:
            where = f"{label} in {context}" if context else label
            reasons[where] = f"{n} predicted and {m} measured cells, fewer than {MIN_CELLS}"
    return tuple(kept), reasons


def _read(adata: ad.AnnData, fields: Fields, genes: tuple[str, ...], name: str) -> _Counts:
    check_anndata(adata, name)
    _note_order(adata, genes, name)
    # Doses and times do not make conditions, and counts are scaled to their own sum.
    plain = replace(fields, dose_key=None, time_key=None, size_factor_key=None)
    cells = Cells.from_anndata(adata, plain, genes)
    return _Counts(cells.counts, cells.perturbations.astype(str), cells.contexts.astype(str))


def _read_predicted(adata: ad.AnnData, fields: Fields, genes: tuple[str, ...]) -> _Counts:
    layer = next((name for name in COUNT_LAYERS if name in adata.layers), None)
    if layer is None:
        values = adata.X.data if sparse.issparse(adata.X) else np.asarray(adata.X)
        if values.size and (np.min(values) < 0 or not np.all(values == np.rint(values))):
            raise InputError(
                "The challenge's measures are of counts, but predicted has no layers['counts'] and "
                "its X holds log expression; give counts, as CellDiT.predict and celldit baseline "
                "write them."
            )
    return _read(adata, replace(fields, counts_layer=layer), genes, "predicted")


def _note_order(adata: ad.AnnData, genes: tuple[str, ...], name: str) -> None:
    theirs = [str(g) for g in adata.var_names]
    if theirs != list(genes) and sorted(theirs) == sorted(genes):
        warnings.warn(
            f"The genes of {name} are in another order than those of truth; they are matched by "
            "name.",
            UserWarning,
            stacklevel=5,
        )


def _targets(labels: tuple[str, ...], genes: tuple[str, ...], fields: Fields) -> dict:
    position: Mapping[str, int] = {gene: i for i, gene in enumerate(genes)}
    return {
        label: np.array(
            sorted(
                position[part]
                for part in parts(label, fields.perturbation_sep, fields.control)
                if part in position
            ),
            dtype=np.int64,
        )
        for label in labels
    }
