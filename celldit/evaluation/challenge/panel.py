"""What the challenge's measures are computed on: counts of one context, grouped by perturbation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
from scipy import sparse

from celldit.data.cells import Cells
from celldit.data.checks import check_anndata
from celldit.data.fields import Fields
from celldit.errors import InputError, examples
from celldit.evaluation.expression import (
    align_genes,
    check_columns,
    check_labels,
    condition_name,
    measured_cells,
    targets_of,
    truth_fields,
)

#: Layers of a prediction that hold counts, the first that is there is read; else ``X``.
COUNT_LAYERS = ("counts", "edited_counts")
#: Fewer cells of a perturbation are not scored.
MIN_CELLS = 10
# Rows of a sparse matrix that are held in float64 at a time.
CHUNK = 1024


@dataclass(frozen=True, eq=False)
class CountGroups:
    """N cells in P groups.

    `counts` are 0 or above, shape (N, G), CSR; `codes` the group of each cell, shape (N,); `labels`
    the names of the groups, sorted.
    """

    counts: sparse.csr_matrix
    codes: np.ndarray
    labels: tuple[str, ...]

    @classmethod
    def of(cls, counts: sparse.csr_matrix, labels_N: np.ndarray) -> CountGroups:
        """Group cells by their labels."""
        names, codes = np.unique(np.asarray(labels_N, dtype=str), return_inverse=True)
        return cls(counts, codes, tuple(map(str, names)))

    @classmethod
    def single(cls, counts: sparse.csr_matrix, label: str = "control") -> CountGroups:
        """All cells as one group."""
        return cls(counts, np.zeros(counts.shape[0], dtype=np.int64), (label,))

    @property
    def sizes(self) -> np.ndarray:
        """Cells of each group, shape (P,)."""
        return np.bincount(self.codes, minlength=len(self.labels))

    def rows(self) -> list[np.ndarray]:
        """Positions of the cells of each group, in the order of the labels."""
        order = np.argsort(self.codes, kind="stable")
        return np.split(order, np.cumsum(self.sizes)[:-1])

    def take(self, rows: np.ndarray) -> CountGroups:
        """Some cells; the groups stay."""
        return CountGroups(self.counts[rows], self.codes[rows], self.labels)

    def only(self, labels: tuple[str, ...]) -> CountGroups:
        """Some groups."""
        if labels == self.labels:
            return self
        names_N = np.asarray(self.labels)[self.codes]
        rows = np.flatnonzero(np.isin(names_N, labels))
        return CountGroups.of(self.counts[rows], names_N[rows])

    def sums(self) -> np.ndarray:
        """Sum of the counts of each group, float64, shape (P, G)."""
        total_PG = np.zeros((len(self.labels), self.counts.shape[1]))
        for start in range(0, self.counts.shape[0], CHUNK):
            some = slice(start, start + CHUNK)
            picks = indicator(self.codes[some], len(self.labels))
            total_PG += (picks @ self.counts[some].astype(np.float64)).toarray()
        return total_PG


def indicator(codes_N: np.ndarray, n_groups: int) -> sparse.csr_matrix:
    """Which cells are of which group, shape (P, N): its product with cells is the groups' sums."""
    n = len(codes_N)
    return sparse.csr_matrix((np.ones(n), (codes_N, np.arange(n))), shape=(n_groups, n))


@dataclass(frozen=True, eq=False)
class Panel:
    """Predicted, measured and control cells of one context.

    `predicted` and `real` hold the same perturbations, those with cells enough on both sides,
    `controls` one group of measured cells. `targets` are the positions of the genes that each
    perturbation acts on; `control_label` is what the data call the controls.
    """

    predicted: CountGroups
    real: CountGroups
    controls: CountGroups
    targets: dict[str, np.ndarray]
    genes: tuple[str, ...]
    control_label: str


@dataclass(frozen=True, eq=False)
class MeasuredCells:
    """Measured cells, read once for all predictions; controls are among them, or apart."""

    cells: Cells
    controls: Cells
    fields: Fields

    @classmethod
    def read(
        cls, truth: ad.AnnData, control: ad.AnnData | None = None, counts_layer: str | None = None
    ) -> MeasuredCells:
        """Read and check them; see :func:`celldit.evaluation.evaluate`."""
        check_anndata(truth, "truth")
        if control is not None:
            control = align_genes(control, truth.var_names, "control")
        # Counts are scaled to their own sum.
        fields = replace(truth_fields(truth, control), size_factor_key=None)
        cells = measured_cells(truth, fields, "truth", counts_layer)
        if control is None:
            return cls(cells, cells, fields)
        return cls(cells, measured_cells(control, fields, "control", counts_layer), fields)

    def panels(
        self, predicted: ad.AnnData, *, least: int = 2, name: str = "predicted"
    ) -> tuple[dict[str, Panel], dict[str, str]]:
        """Put a prediction beside them, in every context with `least` perturbations.

        Panels come by context; beside them the reason of each condition that is not scored. `name`
        is what messages call the prediction. InputError if counts are missing or not counts, a
        context has no control cells, or no context has enough perturbations; UnknownNameError if a
        column or a perturbation is not known.
        """
        measured, control_label = self.cells, self.fields.control
        guess = _read_predicted(predicted, self, name)
        check_labels(guess.perturbations, measured.perturbations, control_label, name)
        panels: dict[str, Panel] = {}
        left_out: dict[str, str] = {}
        few: list[str] = []
        for context in sorted(map(str, set(guess.contexts))):
            labels, reasons = _scored(guess, measured, context, control_label)
            left_out.update(reasons)
            if len(labels) < least:
                few.append(f"{context or 'the panel'}: {len(labels)}")
                continue
            controls = _group(self.controls, context, (control_label,))
            if controls.counts.shape[0] < MIN_CELLS:
                raise InputError(
                    f"{context or 'The experiment'} has {controls.counts.shape[0]} measured "
                    f"control cells, and the measures need {MIN_CELLS}; pass more of them as "
                    "control."
                )
            panels[context] = Panel(
                _group(guess, context, labels),
                _group(measured, context, labels),
                controls,
                targets_of(labels, measured.genes, self.fields),
                measured.genes,
                control_label,
            )
        if not panels:
            why = "; ".join(f"{what}: {reason}" for what, reason in left_out.items())
            raise InputError(
                f"No context has {least} perturbations that were predicted and measured with "
                f"{MIN_CELLS} cells each ({examples(few)}{'; ' + why if why else ''}); the score "
                "of a panel needs several perturbations, so use metrics= for single ones."
            )
        left_out.update({f"context {place}": "too few perturbations" for place in few})
        return panels, left_out


def _group(cells: Cells, context: str, labels: tuple[str, ...]) -> CountGroups:
    rows = np.flatnonzero((cells.contexts == context) & np.isin(cells.perturbations, labels))
    return CountGroups.of(cells.counts[rows], cells.perturbations[rows])


def _scored(
    guess: Cells, measured: Cells, context: str, control: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Perturbations with cells enough on both sides, and why others are left out."""
    found, expected = (
        Counter(map(str, cells.perturbations[cells.contexts == context]))
        for cells in (guess, measured)
    )
    kept, reasons = [], {}
    for label in sorted(set(found) - {control}):
        n, m = found[label], expected[label]
        if min(n, m) >= MIN_CELLS:
            kept.append(label)
        else:
            where = condition_name(label, context)
            reasons[where] = f"{n} predicted and {m} measured cells, fewer than {MIN_CELLS}"
    return tuple(kept), reasons


def _read_predicted(adata: ad.AnnData, measured: MeasuredCells, name: str) -> Cells:
    adata = align_genes(adata, measured.cells.genes, name)
    layer = next((key for key in COUNT_LAYERS if key in adata.layers), None)
    if adata.isbacked:
        adata = adata.to_memory()
    if layer is None and adata.X is not None:
        values = adata.X.data if sparse.issparse(adata.X) else np.asarray(adata.X)
        if values.size and (np.min(values) < 0 or not np.all(values == np.rint(values))):
            raise InputError(
                f"The challenge's measures are of counts, but {name} has no layers['counts'] and "
                "its X holds log expression; give counts, as CellDiT.predict and celldit baseline "
                "write them."
            )
    check_columns(adata, measured.fields, name)
    plain = replace(measured.fields, counts_layer=layer, dose_key=None, time_key=None)
    return Cells.from_anndata(adata, plain)
