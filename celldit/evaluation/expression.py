"""What evaluation sees of an AnnData: log expression, and the condition of each cell."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.arguments import check_known
from celldit.conditions.extrapolation import Extrapolation
from celldit.data.cells import Cells
from celldit.data.checks import check_anndata
from celldit.data.disk.pointers import check_matrices
from celldit.data.fields import Fields, is_set_up
from celldit.data.labels.columns import read_labels
from celldit.data.labels.labels import parts
from celldit.data.query import query_fields
from celldit.data.symbols import columns_of
from celldit.errors import InputError, UnknownNameError, examples, outside

Key = tuple[str, str]
COUNTS_LAYER = "counts"
SIZE_FACTOR = "size_factor"


@dataclass(frozen=True, eq=False)
class Expression:
    """N cells in log expression, log(1 + 10,000 counts / size factor).

    `log` has shape (N, G), CSR or dense, float32; `perturbations` and `contexts` are the canonical
    labels of each cell, object (str), shape (N,).
    """

    log: sparse.csr_matrix | np.ndarray
    perturbations: np.ndarray
    contexts: np.ndarray
    genes: tuple[str, ...]

    @classmethod
    def of(cls, cells: Cells) -> Expression:
        """Normalise counts."""
        return cls(cells.log_normalized(), cells.perturbations, cells.contexts, cells.genes)

    @property
    def n_cells(self) -> int:
        """Number of cells, N."""
        return len(self.perturbations)

    def take(self, rows: np.ndarray) -> Expression:
        """Pick cells by positions or by a mask."""
        return replace(
            self,
            log=self.log[rows],
            perturbations=self.perturbations[rows],
            contexts=self.contexts[rows],
        )

    def dense(self, rows: np.ndarray) -> np.ndarray:
        """Log expression of some cells, float32, shape (len(rows), G)."""
        some: Any = self.log[rows]
        return np.asarray(some.toarray() if sparse.issparse(some) else some, dtype=np.float32)

    def conditions(self) -> dict[Key, np.ndarray]:
        """Positions of the cells of each (perturbation, context), in sorted order of the pairs."""
        frame = pd.DataFrame({"p": self.perturbations, "c": self.contexts})
        found = frame.groupby(["p", "c"], sort=True).indices
        return {(str(p), str(c)): np.asarray(rows) for (p, c), rows in found.items()}

    def by_context(self) -> dict[str, np.ndarray]:
        """Positions of the cells of each context, of control cells."""
        return {context: rows for (_, context), rows in self.conditions().items()}

    def of_conditions(self, pick: Callable[[Key, np.ndarray], np.ndarray]) -> Expression:
        """Some cells of every condition, picked from their positions; the order stays."""
        kept = [pick(key, rows) for key, rows in self.conditions().items()]
        return self.take(np.sort(np.concatenate([np.empty(0, dtype=np.int64), *kept])))

    def only(self, keys: Container[Key]) -> Expression:
        """Cells of some conditions; the order stays."""
        return self.of_conditions(lambda key, rows: rows if key in keys else rows[:0])

    def halves(self, seed: int = 0) -> tuple[Expression, Expression]:
        """Split the cells of each condition into two random halves of one size.

        Of an odd number, one cell is left out. A single cell stands in both.
        """
        rng = np.random.default_rng(seed)
        first, second = [], []
        for rows in self.conditions().values():
            shuffled = rng.permutation(rows)
            half = max(len(rows) // 2, 1)
            first.append(shuffled[:half])
            second.append(shuffled[half : 2 * half] if len(rows) > 1 else shuffled)
        one, other = (self.take(np.sort(np.concatenate(part))) for part in (first, second))
        return one, other


def truth_fields(truth: ad.AnnData, control: ad.AnnData | None = None) -> Fields:
    """What the columns of measured cells mean: as they were set up, or else as their controls were.

    Cells of held-out conditions alone have no controls, without which nothing can be set up.
    InputError if neither was set up, or without a column of perturbations.
    """
    sides = [truth] if control is None else [truth, control]
    fields = Fields.from_anndata(next((side for side in sides if is_set_up(side)), truth))
    if fields.perturbation_key is None:
        raise InputError(
            "The truth was set up without a perturbation_key, so it has no conditions to score; "
            "call celldit.CellDiT.setup_anndata(truth, perturbation_key=...)."
        )
    return fields


def measured_cells(
    adata: ad.AnnData, fields: Fields, name: str, counts_layer: str | None = None
) -> Cells:
    """Read the raw counts of measured cells.

    `name` is for messages, ``"truth"`` or ``"control"``; without `counts_layer` the layer is what
    the cells' own setup, then `fields` say. InputError if the counts or columns cannot be used;
    UnknownNameError if a column or layer does not exist.
    """
    check_columns(adata, fields, name)
    layer = query_fields(adata, fields, counts_layer).counts_layer
    # Doses and times do not make conditions, so flaws in them are no reason to refuse.
    plain = replace(fields, counts_layer=layer, dose_key=None, time_key=None)
    return Cells.from_anndata(adata, plain)


def read_predicted(
    adata: ad.AnnData, fields: Fields, largest_log: float, name: str = "predicted"
) -> Expression:
    """Read predicted cells: sampled counts when there are any, else log expression in ``X``.

    By the largest log expression measured ``X`` is judged to be log expression at all; `name` is
    for messages. InputError if values are missing or infinite, or ``X`` is not log expression;
    UnknownNameError if a column does not exist.
    """
    check_columns(adata, fields, name)
    where = f"layers[{COUNTS_LAYER!r}]" if COUNTS_LAYER in adata.layers else "X"
    check_matrices(adata, name)
    if adata.isbacked:
        adata = adata.to_memory()
    matrix = adata.layers.get(COUNTS_LAYER, adata.X)
    if matrix is None:
        raise InputError(
            f"{name}.{where} is empty; store log expression in it, or counts in a layer."
        )
    values = matrix.data if sparse.issparse(matrix) else np.asarray(matrix)
    n_holes = int((~np.isfinite(values)).sum())
    if n_holes:
        raise InputError(
            f"{name}.{where} has {n_holes} values that are NaN or infinite; a prediction "
            "with holes is not scored, so find out where they come from."
        )
    if COUNTS_LAYER in adata.layers:
        key = SIZE_FACTOR if SIZE_FACTOR in adata.obs else fields.size_factor_key
        if key is not None and key not in adata.obs:
            raise InputError(
                f"{name}.obs has neither {SIZE_FACTOR!r} nor {key!r}, so its counts cannot be "
                f"normalised as the truth's; add {name}.obs[{SIZE_FACTOR!r}], the library sizes."
            )
        layout = replace(
            fields, counts_layer=COUNTS_LAYER, size_factor_key=key, dose_key=None, time_key=None
        )
        return Expression.of(Cells.from_anndata(adata, layout))
    _check_log(values, largest_log, name)
    log = (
        sparse.csr_matrix(matrix, dtype=np.float32)
        if sparse.issparse(matrix)
        else np.asarray(matrix, dtype=np.float32)
    )
    return Expression(log, *read_labels(adata, fields), tuple(str(g) for g in adata.var_names))


def align_genes(
    adata: ad.AnnData, genes: Iterable[str], name: str, truth: str = "truth"
) -> ad.AnnData:
    """Give the genes the order of the truth's, with a note; refuse other genes.

    `name` and `truth` are what messages call the two. InputError says how many genes differ, which,
    and how to align.
    """
    check_anndata(adata, name)
    check_matrices(adata, name)  # before a view in the other order cuts them
    theirs, ours = adata.var_names.astype(str), pd.Index(genes).astype(str)
    if theirs.equals(ours):
        return adata
    lacking, extra = ours.difference(theirs), theirs.difference(ours)
    if len(lacking) == 0 and theirs.is_unique:
        if len(extra):
            raise InputError(
                f"The genes of {name} are not those of {truth}: {name} has {len(extra)} more genes "
                f"({examples(extra)}); align it with {name} = {name}[:, {truth}.var_names].copy()."
            )
        warnings.warn(
            f"The genes of {name} are in another order than those of {truth}; they are matched by "
            "name.",
            UserWarning,
            stacklevel=outside(),
        )
        whole = adata.to_memory() if adata.isbacked else adata
        return whole[:, theirs.get_indexer(ours)]
    raise InputError(
        f"The genes of {name} are not those of {truth}: it lacks {len(lacking)} of {len(ours)} "
        f"({examples(lacking)}) and has {len(extra)} others ({examples(extra)}); restrict "
        f"every AnnData to shared = {truth}.var_names.intersection({name}.var_names), with "
        f"[:, shared].copy() and a size_factor_key, or predict the genes of {truth}."
    )


def targets_of(
    labels: Iterable[str], genes: Sequence[str], fields: Fields
) -> dict[str, np.ndarray]:
    """Positions of the genes that each perturbation acts on, ascending, as its label names them."""
    named = {label: parts(label, fields.perturbation_sep, fields.control) for label in labels}
    columns = columns_of((part for some in named.values() for part in some), genes)
    return {
        label: np.array(sorted({columns[part] for part in some if part in columns}), dtype=np.int64)
        for label, some in named.items()
    }


def conditions_of(
    adata: ad.AnnData, fields: Fields, name: str = "predicted"
) -> set[tuple[str, str]]:
    """(perturbation, context) of all cells, by their canonical labels; `name` is for messages."""
    check_columns(adata, fields, name)
    labels, contexts = read_labels(adata, fields)
    return set(zip(map(str, labels), map(str, contexts), strict=True))


def seen_in_training(adata: ad.AnnData, fields: Fields) -> list[str]:
    """Conditions of a prediction of which it says itself that they were in training, by name."""
    if "extrapolation" not in adata.obs:
        return []
    seen = adata[(adata.obs["extrapolation"].astype(str) == Extrapolation.SEEN).to_numpy()]
    treated = [pair for pair in sorted(conditions_of(seen, fields)) if pair[0] != fields.control]
    return [condition_name(*pair) for pair in treated]


def some_of(names: Sequence[str], most: int) -> str:
    """Names in a sentence, the first of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def condition_name(perturbation: str, context: str) -> str:
    """A condition as people read it."""
    return f"{perturbation} in {context}" if context else perturbation


def seen_note(names: Sequence[str]) -> str:
    """What a score of conditions that were in training is worth."""
    return (
        f"In training: {some_of(names, 3)}. Unless the cells that judge were held out, these "
        "scores say how well they were fitted, not how well they are predicted."
    )


def check_labels(
    predicted_N: np.ndarray, truth_M: np.ndarray, control: str, name: str = "predicted"
) -> None:
    """Refuse perturbations, by the label of each cell, that the truth does not hold.

    `name` is what messages call the prediction. UnknownNameError names the first such perturbation
    and the closest that the truth holds.
    """
    known = dict.fromkeys(sorted(set(truth_M) - {control}))
    predicted = sorted(set(predicted_N) - {control})
    check_known(predicted, known, f"perturbation in {name}, not in truth:")


def check_columns(adata: ad.AnnData, fields: Fields, name: str) -> None:
    """Raise UnknownNameError if a column of perturbations or covariates is missing."""
    wanted = [fields.perturbation_key, *fields.covariate_keys]
    missing = [key for key in wanted if key is not None and key not in adata.obs.columns]
    if missing:
        raise UnknownNameError(
            f"{name}.obs lacks {examples(missing)}, which the setup of the measured cells names "
            f"({name} has {examples(adata.obs.columns, 6) or 'no columns'}); rename its columns."
        )


def _check_log(values: np.ndarray, largest_log: float, name: str) -> None:
    top = float(values.max()) if values.size else 0.0
    # Shifting a measured cell by an effect may exceed what was measured, but not by a factor.
    limit = 1.5 * max(largest_log, 1.0)
    whole = values.size > 0 and top >= 2.0 and bool(np.all(values == np.rint(values)))
    if top > limit or whole:
        raise InputError(
            f"{name}.X does not hold log expression, log(1 + 10,000 counts / size factor): it "
            f"reaches {top:.4g} where the measured cells reach {largest_log:.4g}"
            f"{' and holds whole numbers only' if whole else ''}; if these are counts, store them "
            f"in {name}.layers[{COUNTS_LAYER!r}] with {name}.obs[{SIZE_FACTOR!r}]."
        )
