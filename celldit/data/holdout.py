"""What to hold out: perturbations, combinations, contexts, pairs or cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anndata as ad
import numpy as np

from celldit.data.cells import read_labels
from celldit.data.fields import Fields
from celldit.data.labels.labels import canonical, parts
from celldit.errors import InputError, UnknownNameError

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Conditions:
    """What was done to each of N cells, and in which context.

    Parameters
    ----------
    labels
        Canonical perturbation labels, object (str), shape (N,).
    contexts
        Context names, object (str), shape (N,).
    names
        Cell names, object (str), shape (N,).
    sep, control
        The grammar of the labels; see :func:`celldit.data.labels.labels.parts`.
    """

    labels: np.ndarray
    contexts: np.ndarray
    names: np.ndarray
    sep: str = "+"
    control: str = "control"
    parts_of: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        table = {label: parts(label, self.sep, self.control) for label in set(self.labels)}
        object.__setattr__(self, "parts_of", table)

    @classmethod
    def from_anndata(cls, adata: ad.AnnData, fields: Fields) -> Conditions:
        """Read them from the columns that the AnnData was set up with."""
        labels, contexts = read_labels(adata, fields)
        names = np.asarray(adata.obs_names.astype(str), dtype=object)
        return cls(labels, contexts, names, fields.perturbation_sep, fields.control)

    @property
    def is_control(self) -> np.ndarray:
        """Whether each cell is unperturbed, bool, shape (N,)."""
        return np.asarray(self.labels == self.control, dtype=bool)

    @property
    def perturbations(self) -> list[str]:
        """The labels of perturbed cells, sorted."""
        return sorted(label for label, names in self.parts_of.items() if names)

    def having(self, label: str) -> np.ndarray:
        """Which cells have all parts of a label, and perhaps others, bool, shape (N,)."""
        wanted = set(parts(label, self.sep, self.control))
        hits = [name for name, names in self.parts_of.items() if wanted <= set(names)]
        return np.isin(self.labels, np.array(hits, dtype=object))


@dataclass(frozen=True)
class Draw:
    """What to hold out: the units in ``test``, or else a share drawn with ``seed``."""

    test: tuple[Any, ...] | None
    fraction: float
    seed: int

    def shuffled(self, units: Sequence[_T]) -> list[_T]:
        """Put units in random order."""
        order = np.random.default_rng(self.seed).permutation(len(units))
        return [units[position] for position in order]

    def number(self, n_units: int) -> int:
        """How many of ``n_units`` to draw: at least one."""
        return max(1, round(self.fraction * n_units))


def hold_out_perturbations(conditions: Conditions, draw: Draw) -> np.ndarray:
    """Hold out perturbations, alone and in combinations; bool, shape (N,)."""
    if draw.test is not None:
        chosen = _known_labels(draw.test, conditions.perturbations, conditions)
    else:
        names = sorted(
            {name for label in conditions.perturbations for name in conditions.parts_of[label]}
        )
        chosen = draw.shuffled(names)[: draw.number(len(names))]
    return _any(conditions.having(label) for label in chosen)


def hold_out_combinations(conditions: Conditions, draw: Draw, n_seen: int | None) -> np.ndarray:
    """Hold out combinations, with ``n_seen`` of each one's parts seen singly; bool, shape (N,)."""
    combinations = [p for p in conditions.perturbations if len(conditions.parts_of[p]) > 1]
    if not combinations:
        raise InputError(
            f"No label has several parts joined by {conditions.sep!r}, so there is no combination "
            'to hold out; use by="perturbation", or set up another perturbation_sep.'
        )
    if draw.test is not None:
        candidates = _known_labels(draw.test, combinations, conditions)
        n_wanted = len(candidates)
    else:
        candidates = draw.shuffled(combinations)
        n_wanted = draw.number(len(combinations))
    if n_seen is None:
        return _any(conditions.having(label) for label in candidates[:n_wanted])

    seen: set[str] = set()
    unseen: set[str] = set()
    chosen: list[str] = []
    for label in candidates:
        if len(chosen) == n_wanted:
            break
        kept = _parts_to_keep(conditions, label, n_seen, seen, unseen)
        if kept is not None:
            chosen.append(label)
            seen |= kept
            unseen |= set(conditions.parts_of[label]) - kept
        elif draw.test is not None:
            raise InputError(
                f"{label!r} cannot be held out with {n_seen} of its parts seen singly: too few of "
                "them occur as single perturbations, or another combination in test needs them."
            )
    if not chosen:
        raise InputError(
            f"No combination can be held out with {n_seen} of its parts seen singly: their single "
            "perturbations are not in the data; choose a smaller n_seen, or None."
        )
    return _any(conditions.having(label) for label in [*chosen, *sorted(unseen)])


def hold_out_contexts(conditions: Conditions, draw: Draw) -> np.ndarray:
    """Hold out contexts; bool, shape (N,)."""
    perturbed = ~conditions.is_control
    known = sorted(set(conditions.contexts[perturbed]))
    if draw.test is not None:
        chosen = [_known(str(context), known, "perturbed context") for context in draw.test]
    else:
        chosen = draw.shuffled(known)[: draw.number(len(known))]
    return np.isin(conditions.contexts, np.array(chosen, dtype=object))


def hold_out_pairs(conditions: Conditions, draw: Draw) -> np.ndarray:
    """Hold out pairs of perturbation and context; bool, shape (N,)."""
    perturbed = ~conditions.is_control
    keys = np.empty(len(perturbed), dtype=object)
    keys[:] = list(zip(conditions.labels, conditions.contexts, strict=True))
    known = sorted(set(keys[perturbed]))
    if draw.test is not None:
        chosen = {_known_pair(pair, known, conditions) for pair in draw.test}
    else:
        left = {
            label: sum(pair[0] == label for pair in known) for label in conditions.perturbations
        }
        chosen = set()
        for pair in draw.shuffled(known):
            if len(chosen) < draw.number(len(known)) and left[pair[0]] > 1:
                chosen.add(pair)
                left[pair[0]] -= 1
        if not chosen:
            raise InputError(
                "Every perturbation occurs in one context only, so no pair can be held out while "
                'its perturbation stays in training; use by="perturbation".'
            )
    return np.array([key in chosen for key in keys], dtype=bool)


def hold_out_cells(conditions: Conditions, draw: Draw) -> np.ndarray:
    """Hold out cells, the same share of every perturbation in every context; bool, shape (N,)."""
    if draw.test is not None:
        known = set(conditions.names)
        for name in draw.test:
            _known(str(name), known, "cell")
        return np.isin(conditions.names, np.array([str(n) for n in draw.test], dtype=object))
    rng = np.random.default_rng(draw.seed)
    held_out = np.zeros(len(conditions.labels), dtype=bool)
    strata: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(conditions.labels, conditions.contexts, strict=True)):
        strata.setdefault(key, []).append(row)
    for key in sorted(strata):
        rows = rng.permutation(strata[key])
        # Rounded up or down by chance, so that small strata give their share on average.
        n_test = int(np.floor(draw.fraction * len(rows) + rng.random()))
        held_out[rows[:n_test]] = True
    if not held_out.any() or held_out.all():
        raise InputError(
            f"With fraction={draw.fraction} of {len(held_out)} cells one side is empty; choose "
            "another fraction."
        )
    return held_out


def _parts_to_keep(
    conditions: Conditions, label: str, n_seen: int, seen: set[str], unseen: set[str]
) -> set[str] | None:
    """Choose the parts of a combination that stay, given what others need; None if none fit."""
    names = conditions.parts_of[label]
    must = [name for name in names if name in seen]
    may = [n for n in names if n in conditions.parts_of and n not in unseen and n not in seen]
    if len(must) > n_seen or len(must) + len(may) < n_seen:
        return None
    return {*must, *may[: n_seen - len(must)]}


def _known_labels(
    requested: Iterable[Any], known: Sequence[str], conditions: Conditions
) -> list[str]:
    labels = [canonical(str(label), conditions.sep, conditions.control) for label in requested]
    return [_known(label, known, "perturbation") for label in labels]


def _known_pair(pair: Any, known: list[tuple[str, str]], conditions: Conditions) -> tuple[str, str]:
    if isinstance(pair, str) or len(pair) != 2:
        raise InputError(f"Each pair in test is (perturbation, context), not {pair!r}.")
    label = canonical(str(pair[0]), conditions.sep, conditions.control)
    if (label, str(pair[1])) not in known:
        written = [f"{one} in {two}" for one, two in known]
        raise UnknownNameError.among("pair", f"{label} in {pair[1]}", written)
    return label, str(pair[1])


def _known(name: str, known: Iterable[str], kind: str) -> str:
    if name not in known:
        raise UnknownNameError.among(kind, name, known)
    return name


def _any(masks: Iterable[np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce(list(masks))
