"""The measured side of an evaluation, prepared once and used for every prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA

from celldit.arguments import check_seed
from celldit.data.checks import check_anndata
from celldit.data.fields import Fields
from celldit.errors import InputError, examples
from celldit.evaluation.catalogue import DE_COUNTS, FUNCTIONS, OF_PANELS
from celldit.evaluation.condition import Condition
from celldit.evaluation.expression import (
    Expression,
    Key,
    align_genes,
    check_labels,
    condition_name,
    measured_cells,
    read_predicted,
    targets_of,
    truth_fields,
)
from celldit.evaluation.representation import fit_components
from celldit.progress import counted


@dataclass(frozen=True, eq=False)
class Task:
    """Measured cells that predictions are scored against.

    `components` are fitted on perturbed (`truth`) and `control` cells; `fields` say what the
    columns of their AnnData mean. Predictions are compared with `predicted_control`; None for
    the same controls on both sides.
    """

    truth: Expression
    control: Expression
    components: PCA
    fields: Fields
    seed: int = 0
    predicted_control: Expression | None = None

    @classmethod
    def prepare(
        cls,
        truth: ad.AnnData,
        control: ad.AnnData | None = None,
        *,
        seed: int = 0,
        counts_layer: str | None = None,
    ) -> Task:
        """Read and check the measured cells; see :func:`celldit.evaluation.evaluate`."""
        check_seed(seed)
        check_anndata(truth, "truth")
        own = control is None
        control = truth if control is None else control
        check_anndata(control, "control")
        fields = truth_fields(truth, None if own else control)
        control = align_genes(control, truth.var_names, "control")
        measured = Expression.of(measured_cells(truth, fields, "truth", counts_layer))
        measured = measured.take(measured.perturbations != fields.control)
        controls = Expression.of(measured_cells(control, fields, "control", counts_layer))
        controls = controls.take(controls.perturbations == fields.control)
        if measured.n_cells == 0:
            raise InputError(
                f"truth has no perturbed cells: all are labelled {fields.control!r}; pass the "
                "measured cells of the perturbations that were predicted."
            )
        if controls.n_cells == 0:
            raise InputError(
                f"{'truth' if own else 'control'} has no cells labelled {fields.control!r} in "
                f"obs[{fields.perturbation_key!r}]; pass the measured control cells as control."
            )
        both = sparse.vstack([controls.log, measured.log], format="csr")
        return cls(measured, controls, fit_components(both, seed=seed), fields, seed)

    def read(self, predicted: ad.AnnData, name: str = "predicted") -> Expression:
        """Read and check a prediction, control cells left out; `name` is for messages."""
        predicted = align_genes(predicted, self.truth.genes, name)
        largest = max(float(side.log.max()) for side in (self.truth, self.control))
        cells = read_predicted(predicted, self.fields, largest, name)
        check_labels(cells.perturbations, self.truth.perturbations, self.fields.control, name)
        perturbed = cells.take(cells.perturbations != self.fields.control)
        if perturbed.n_cells == 0:
            raise InputError(
                f"{name} has no perturbed cells: all are labelled {self.fields.control!r}; pass "
                "the cells that were predicted for the truth's perturbations."
            )
        return perturbed

    def halved(self, seed: int) -> tuple[Task, Expression]:
        """Split the measured cells, controls included, in two.

        The task scores against the second half, from its control cells, and predictions start at
        those of the first half: with the same controls on both sides their noise would pass for
        agreement. Beside it are the perturbed cells of the first half.
        """
        first, second = self.truth.halves(seed)
        # A single cell, which is in both halves, must not predict itself.
        second = second.only({k for k, rows in self.truth.conditions().items() if len(rows) > 1})
        theirs, ours = self.control.halves(seed)
        return replace(self, truth=second, control=ours, predicted_control=theirs), first

    def score(
        self,
        predicted: Expression,
        names: Sequence[str],
        *,
        min_cells: int = 10,
        drawn_from: Mapping[Key, float] | None = None,
    ) -> pd.DataFrame:
        """Compute measures of every condition; see :func:`celldit.evaluation.evaluate`.

        ``drawn_from`` says of how many cells those of a condition are a random part, infinity for a
        part of the measurement: the noise of that draw is subtracted from squared errors.
        """
        names = _with_call_sets(names)
        of_panel = [name for name in names if name in OF_PANELS]
        found, expected = predicted.conditions(), self.truth.conditions()
        controls, apart = self.control.by_context(), self.predicted_control
        others = {} if apart is None else apart.by_context()
        n_controls = {context: len(rows) for context, rows in controls.items()}
        counts = {
            key: (len(found.get(key, ())), len(expected.get(key, ())), n_controls.get(key[1], 0))
            for key in sorted({*found, *expected})
        }
        self._check_controls(counts)
        reasons = {key: _why_not(n, min_cells) for key, n in counts.items()}
        values: dict[Key, dict[str, float]] = {
            key: {"n_predicted": n[0], "n_measured": n[1]} for key, n in counts.items()
        }
        scored = [key for key, why in reasons.items() if not why]
        for context in sorted({c for _, c in scored}):
            control_KG = self.control.dense(controls[context])
            base_KG = None if apart is None else apart.dense(others[context])
            keys, shifts = [key for key in scored if key[1] == context], []
            for key in counted(keys, f"scoring {context}".rstrip(), "conditions"):
                condition = Condition(
                    predicted_NG=predicted.dense(found[key]),
                    true_MG=self.truth.dense(expected[key]),
                    control_KG=control_KG,
                    components=self.components,
                    seed=self.seed,
                    drawn_from=(drawn_from or {}).get(key),
                    predicted_control_KG=base_KG,
                )
                values[key].update({n: FUNCTIONS[n](condition) for n in names if n in FUNCTIONS})
                if of_panel:
                    shifts.append((condition.predicted_shift, condition.true_shift))
            if not of_panel:
                continue
            u_PG, v_PG = (np.stack(side) for side in zip(*shifts, strict=True))
            targets = self._targets(keys)
            for name in of_panel:
                for key, value in zip(keys, OF_PANELS[name](u_PG, v_PG, targets), strict=True):
                    values[key][name] = float(value)
        table = pd.DataFrame(
            [(*key, n, values[key].get(n, float("nan"))) for key in counts for n in names],
            columns=["perturbation", "context", "metric", "value"],
        ).astype({"value": np.float64})
        table.attrs["not_scored"] = {
            condition_name(*key): why for key, why in reasons.items() if why
        }
        return table

    def _check_controls(self, counts: Mapping[Key, tuple[int, int, int]]) -> None:
        bare = sorted({c for (_, c), n in counts.items() if n[0] and n[1] and not n[2]})
        if bare:
            raise InputError(
                f"{len(bare)} contexts have predictions but no control cells ({examples(bare)}); "
                "pass measured control cells of the same "
                f"{', '.join(self.fields.covariate_keys) or 'experiment'} as control."
            )

    def _targets(self, keys: Sequence[Key]) -> np.ndarray:
        """Positions of the genes that any of the conditions acts on."""
        found = targets_of({label for label, _ in keys}, self.truth.genes, self.fields)
        return np.unique(np.concatenate(list(found.values())))


def _with_call_sets(names: Sequence[str]) -> tuple[str, ...]:
    """How many genes are called stands beside every measure that rests on calls."""
    if not any(name.startswith("de_") or name == "lfc_error" for name in names):
        return tuple(names)
    return tuple(dict.fromkeys((*names, *DE_COUNTS)))


def _why_not(n: tuple[int, int, int], min_cells: int) -> str:
    kinds = ("predicted", "measured", "control")
    least = max(min_cells, 1)
    few = [f"{count} {kind}" for count, kind in zip(n, kinds, strict=True) if count < least]
    return f"{' and '.join(few)} cells" if few else ""
