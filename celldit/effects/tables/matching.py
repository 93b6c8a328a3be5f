"""Which genes of a table are which of a model's, whatever the spelling of their names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from celldit.data.labels.doubtful import joined_otherwise
from celldit.data.symbols import human_symbols, is_mouse
from celldit.effects.tables.table import EffectTable
from celldit.errors import InputError, examples, outside

LEAST_GENES = 10
LOG_2 = float(np.log(2))


@dataclass(frozen=True, eq=False)
class MatchedTable:
    """A table, and the M of its genes that a model has, too."""

    name: str  # that messages have for it
    table: EffectTable
    # Its perturbations as the model writes them, by the sorted names of their parts.
    keys: tuple[tuple[str, ...], ...]
    genes: tuple[str, ...]  # names of the M genes, in the model
    theirs: np.ndarray  # their columns in the table, shape (M,)
    own: np.ndarray  # their columns in the model, shape (M,)
    factor: float  # what brings stored values to natural logarithms
    share: float  # of the model's genes that are matched

    def blocks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
        """Some rows at a time: which, and effects and standard errors of the M genes."""
        for rows, effects_BG, errors_BG in self.table.blocks():
            errors_BM = None if errors_BG is None else errors_BG[:, self.theirs] * self.factor
            yield rows, effects_BG[:, self.theirs] * self.factor, errors_BM


def match_tables(
    tables: Mapping[str, EffectTable], genes: Sequence[str], perturbations: Sequence[str], sep: str
) -> dict[str, MatchedTable]:
    """Match tables to the genes and perturbations of a model, before anything is trained.

    What a table calls by another case takes the model's spelling; `sep` joins combinations of the
    model, and those of a table where it does not say what does (:func:`parts_of`).

    InputError if a table shares too few genes, or neither says in which logarithm it is nor shares
    a perturbation from which that could be learned. A warning if standard errors are missing, and
    as :func:`match_genes`.
    """
    found = {}
    for name, table in tables.items():
        theirs_M, own_M = match_genes(name, table, genes)
        parts = parts_of(table, perturbations, sep)
        spelt = match_names(sorted({part for each in parts for part in each}), perturbations)
        keys = tuple(tuple(sorted(spelt[part] for part in each)) for each in parts)
        shared = {part for key in keys for part in key} & set(perturbations)
        if not table.log and not shared:
            raise InputError(
                f"The table {name!r} does not say whether its log fold changes are natural or to "
                "the base of 2, and shares no perturbation with the data that would show it; say "
                'so: table.uns["effect_table"] = {"log": "2"} (or "natural"), or '
                'table.attrs["log"] = "2" for a DataFrame.'
            )
        if table.errors is None:
            warnings.warn(
                f"The table {name!r} has no standard errors; they are estimated from how each gene "
                "scatters between perturbations, most of which are taken to leave it alone. Give "
                "them as layers['se'], or as a column se.",
                UserWarning,
                stacklevel=outside(),
            )
        found[name] = MatchedTable(
            name,
            table,
            keys,
            tuple(genes[g] for g in own_M),
            theirs_M,
            own_M,
            LOG_2 if table.log == "2" else 1.0,
            len(own_M) / len(genes),
        )
    return found


def parts_of(table: EffectTable, known: Sequence[str], sep: str) -> list[list[str]]:
    """Parts of each perturbation of a table, as it writes them.

    A table that does not say what joins them is cut at the model's separator, or else at any other,
    such as ``+``, between names that all stand alone in the table or are `known` to the model.
    """
    if table.sep:
        return [_cut(label, table.sep) for label in table.perturbations]
    names = {*known, *table.perturbations}
    found = []
    for label in table.perturbations:
        other = None if sep in label else joined_otherwise(label, names, sep)
        found.append(_cut(label, sep) if other is None else other[1])
    return found


def _cut(label: str, sep: str) -> list[str]:
    return [part.strip() for part in label.split(sep)]


def _stripped(names: Sequence[str]) -> list[str]:
    return [name.strip() for name in names]


def match_genes(
    name: str, table: EffectTable, genes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the genes that both have, in the table and in the model, shape (M,) each.

    By name: as it is written, then by human symbol (:func:`celldit.data.symbols.human_symbols`), in
    any of the table's columns.

    InputError if fewer than ten genes are shared; says what the names look like, and whether rows
    and columns are swapped. A warning if the table is of another species, or shares less than half
    of the model's genes.
    """
    spellings: tuple[Callable[[Sequence[str]], list[str]], ...] = (_stripped, human_symbols)
    tried = []
    for spell in spellings:
        own = spell(genes)
        for names in (table.genes, *table.aliases.values()):
            place = _unambiguous(spell(names))
            tried.append((sum(gene in place for gene in own), spell, own, place))
    n_found, spelt, own, place = max(tried, key=lambda each: each[0])
    if n_found < LEAST_GENES and n_found < len(genes):
        known = set(human_symbols(genes))
        swapped = sum(label in known for label in human_symbols([*set(table.perturbations)]))
        hint = (
            "its rows are named like genes: if perturbations are in columns, transpose it, table.T"
            if swapped > max(n_found, len(table) // 2)
            else "give names of the same kind, such as a column var['symbol'] beside Ensembl ids"
        )
        raise InputError(
            f"The table {name!r} shares {n_found} of the {len(genes)} genes with the data, which "
            f"name theirs {examples(genes, 3)}, the table {examples(table.genes, 3)}; {hint}."
        )
    own_M = np.array([g for g, gene in enumerate(own) if gene in place], dtype=np.int64)
    theirs_M = np.array([place[own[g]] for g in own_M], dtype=np.int64)
    share = n_found / len(genes)
    if spelt is human_symbols and is_mouse(table.genes) != is_mouse(genes):
        warnings.warn(
            f"The table {name!r} names genes like another species does "
            f"({examples(table.genes, 3)}; the data {examples(genes, 3)}); {n_found} genes are "
            "matched as one-to-one orthologs of mouse and human. How far their effects hold is "
            "learned from shared perturbations.",
            UserWarning,
            stacklevel=outside(),
        )
    elif share < 0.5:
        warnings.warn(
            f"The table {name!r} has {n_found} of the {len(genes)} genes of the data ({share:.0%}"
            "); effects on the others follow from how genes vary together.",
            UserWarning,
            stacklevel=outside(),
        )
    return theirs_M, own_M


def match_names(labels: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Spelling of the model for perturbations that it knows by another name of the same gene."""
    exact = set(known)
    place = _unambiguous(human_symbols(known))
    found = {}
    for label, symbol in zip(labels, human_symbols(labels), strict=True):
        at = place.get(symbol)
        found[label] = label if label in exact or at is None else known[at]
    return found


def _unambiguous(names: Sequence[str]) -> dict[str, int]:
    """Position of each name that occurs once."""
    place: dict[str, int] = {}
    twice = set()
    for i, name in enumerate(names):
        if name in place:
            twice.add(name)
        place[name] = i
    return {name: i for name, i in place.items() if name not in twice}
