"""Splits: which cells a model may learn from, and which it is judged by.

The unit held out is what the model is asked to generalise over. Control cells stay in training,
since a prediction starts from them, unless single cells are split.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_key, check_known, check_seed, check_share
from celldit.data.fields import Fields
from celldit.data.labels.columns import read_labels
from celldit.data.labels.labels import canonical, parts
from celldit.errors import InputError, UnknownNameError

By = Literal["perturbation", "combination", "context", "pair", "cells"]


def split(
    adata: ad.AnnData,
    by: By = "perturbation",
    *,
    test: Sequence[Any] | None = None,
    fraction: float = 0.2,
    n_seen: int | None = None,
    seed: int = 0,
    key_added: str = "split",
) -> None:
    """Split cells into ``"train"`` and ``"test"`` and write it to ``adata.obs[key_added]``.

    Parameters
    ----------
    adata
        Cells, set up with ``setup_anndata``.
    by
        What is held out.

        ``"perturbation"``
            Perturbations: no training cell has one of them, alone or in a combination.
        ``"combination"``
            Combinations (labels with several parts); see ``n_seen``.
        ``"context"``
            Contexts (combinations of covariates): they are seen in control cells only.
        ``"pair"``
            Pairs of perturbation and context. Drawn so that each perturbation stays in training in
            some other context.
        ``"cells"``
            Cells at random, controls too, the same share of each perturbation and context.
    test
        What to hold out, instead of a draw: perturbation labels, contexts (covariate values joined
        with ``" | "``), tuples (perturbation, context), or cell names.
    fraction
        Share of the units (perturbations, combinations, contexts, pairs, cells) to draw.
    n_seen
        For ``"combination"``: how many parts of a held-out combination stay in training as single
        perturbations: 0, 1 or 2. The other parts leave training wholly, with every label that has
        them, and go to the test side too. None holds out the combinations and nothing else.
    seed
        Of the draw.
    key_added
        The column to write, categorical.

    Raises
    ------
    InputError
        If nothing can be held out in this way, or nothing perturbed would be left to train on.
    UnknownNameError
        If ``by`` or something in ``test`` is not known.

    Examples
    --------
    >>> cd.pp.split(adata, by="pair", test=[("STAT1", "rep_3")])
    >>> train = adata[adata.obs["split"] == "train"].copy()
    """
    fields = Fields.from_anndata(adata)
    _check_arguments(fields, by, test, fraction, n_seen, seed, key_added)
    labels, contexts = read_labels(adata, fields)
    screen = _Screen(
        labels,
        contexts,
        np.asarray(adata.obs_names.astype(str), dtype=object),
        (fields.perturbation_sep, fields.control),
        None if test is None else tuple(test),
        fraction,
        seed,
    )
    if by == "cells":
        held_out = screen.cells()
    else:
        chosen = screen.combination(n_seen) if by == "combination" else getattr(screen, by)()
        held_out = chosen & ~screen.is_control
        if not (~screen.is_control & ~held_out).any():
            raise InputError(
                f"Holding this out by {by!r} leaves no perturbed cell to train on; hold out less."
            )
    sides = pd.Categorical.from_codes(held_out.astype(int), categories=["train", "test"])
    with warnings.catch_warnings():
        # Writing to a view makes it an AnnData of its own, which is what the caller asks for here.
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        adata.obs[key_added] = sides


@dataclass(frozen=True, eq=False)
class _Screen:
    """Canonical labels, contexts and names of N cells, and what is held out of them.

    Each way to hold out is a method, which says of each cell whether it is, bool, shape (N,). The
    grammar is the separator and the control of the labels; the rest is as in :func:`split`.
    """

    labels: np.ndarray
    contexts: np.ndarray
    names: np.ndarray
    grammar: tuple[str, str]
    test: tuple[Any, ...] | None
    fraction: float
    seed: int

    @cached_property
    def parts_of(self) -> dict[str, tuple[str, ...]]:
        """The parts of each label."""
        return {label: parts(label, *self.grammar) for label in set(self.labels)}

    @cached_property
    def is_control(self) -> np.ndarray:
        """Whether each cell is unperturbed, bool, shape (N,)."""
        return np.asarray(self.labels == self.grammar[1], dtype=bool)

    @cached_property
    def perturbations(self) -> list[str]:
        """The labels of perturbed cells, sorted."""
        return sorted(label for label, names in self.parts_of.items() if names)

    def perturbation(self) -> np.ndarray:
        """Hold out perturbations, alone and in combinations."""
        if self.test is not None:
            return self._having(self._labels_among(self.perturbations))
        names = {name for label in self.perturbations for name in self.parts_of[label]}
        return self._having(self._drawn(sorted(names)))

    def combination(self, n_seen: int | None) -> np.ndarray:
        """Hold out combinations, with ``n_seen`` of each one's parts seen singly."""
        combinations = [p for p in self.perturbations if len(self.parts_of[p]) > 1]
        if not combinations:
            raise InputError(
                f"No label has several parts joined by {self.grammar[0]!r}, so there is no "
                'combination to hold out; use by="perturbation", or set up another '
                "perturbation_sep."
            )
        if self.test is not None:
            candidates = self._labels_among(combinations)
            n_wanted = len(candidates)
        else:
            candidates, n_wanted = self._shuffled(combinations), self._number(combinations)
        if n_seen is None:
            return self._having(candidates[:n_wanted])

        seen: set[str] = set()
        unseen: set[str] = set()
        chosen: list[str] = []
        for label in candidates:
            if len(chosen) == n_wanted:
                break
            kept = self._parts_to_keep(label, n_seen, seen, unseen)
            if kept is not None:
                chosen.append(label)
                seen |= kept
                unseen |= set(self.parts_of[label]) - kept
            elif self.test is not None:
                raise InputError(
                    f"{label!r} cannot be held out with {n_seen} of its parts seen singly: too few "
                    "of them occur as single perturbations, or another combination in test needs "
                    "them."
                )
        if not chosen:
            raise InputError(
                f"No combination can be held out with {n_seen} of its parts seen singly: their "
                "single perturbations are not in the data; choose a smaller n_seen, or None."
            )
        return self._having([*chosen, *sorted(unseen)])

    def context(self) -> np.ndarray:
        """Hold out contexts."""
        known = sorted(set(self.contexts[~self.is_control]))
        chosen = self._drawn(known) if self.test is None else [str(name) for name in self.test]
        check_known(chosen, known, "perturbed context")
        return np.isin(self.contexts, np.array(chosen, dtype=object))

    def pair(self) -> np.ndarray:
        """Hold out pairs of perturbation and context."""
        keys = list(zip(self.labels, self.contexts, strict=True))
        known = sorted({key for key, alone in zip(keys, self.is_control, strict=True) if not alone})
        if self.test is not None:
            chosen = {self._known_pair(pair, known) for pair in self.test}
        else:
            left = {label: sum(pair[0] == label for pair in known) for label in self.perturbations}
            chosen = set()
            for pair in self._shuffled(known):
                if len(chosen) < self._number(known) and left[pair[0]] > 1:
                    chosen.add(pair)
                    left[pair[0]] -= 1
            if not chosen:
                raise InputError(
                    "Every perturbation occurs in one context only, so no pair can be held out "
                    'while its perturbation stays in training; use by="perturbation".'
                )
        return np.array([key in chosen for key in keys], dtype=bool)

    def cells(self) -> np.ndarray:
        """Hold out cells, the same share of every perturbation in every context."""
        if self.test is not None:
            chosen = [str(name) for name in self.test]
            check_known(chosen, set(self.names), "cell")
            return np.isin(self.names, np.array(chosen, dtype=object))
        rng = np.random.default_rng(self.seed)
        held_out = np.zeros(len(self.labels), dtype=bool)
        strata: dict[tuple[str, str], list[int]] = {}
        for row, key in enumerate(zip(self.labels, self.contexts, strict=True)):
            strata.setdefault(key, []).append(row)
        for key in sorted(strata):
            rows = rng.permutation(strata[key])
            # Rounded up or down by chance, so that small strata give their share on average.
            n_test = int(np.floor(self.fraction * len(rows) + rng.random()))
            held_out[rows[:n_test]] = True
        if not held_out.any() or held_out.all():
            raise InputError(
                f"With fraction={self.fraction} of {len(held_out)} cells one side is empty; choose "
                "another fraction."
            )
        return held_out

    def _having(self, labels: Iterable[str]) -> np.ndarray:
        """Which cells have all parts of any of some labels, and perhaps others."""
        wanted = [set(parts(label, *self.grammar)) for label in labels]
        hits = [n for n, names in self.parts_of.items() if any(w <= set(names) for w in wanted)]
        return np.isin(self.labels, np.array(hits, dtype=object))

    def _shuffled(self, units: Sequence[Any]) -> list[Any]:
        order = np.random.default_rng(self.seed).permutation(len(units))
        return [units[position] for position in order]

    def _number(self, units: Sequence[Any]) -> int:
        """How many of some units to draw: at least one."""
        return max(1, round(self.fraction * len(units)))

    def _drawn(self, units: Sequence[Any]) -> list[Any]:
        return self._shuffled(units)[: self._number(units)]

    def _parts_to_keep(
        self, label: str, n_seen: int, seen: set[str], unseen: set[str]
    ) -> set[str] | None:
        """Choose the parts of a combination that stay, given what others need; None if none fit."""
        names = self.parts_of[label]
        must = [name for name in names if name in seen]
        may = [n for n in names if n in self.parts_of and n not in unseen and n not in seen]
        if len(must) > n_seen or len(must) + len(may) < n_seen:
            return None
        return {*must, *may[: n_seen - len(must)]}

    def _labels_among(self, known: Sequence[str]) -> list[str]:
        labels = [canonical(str(label), *self.grammar) for label in self.test or ()]
        check_known(labels, known, "perturbation")
        return labels

    def _known_pair(self, pair: Any, known: list[tuple[str, str]]) -> tuple[str, str]:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"Each pair in test is (perturbation, context), not {pair!r}.")
        found = canonical(str(pair[0]), *self.grammar), str(pair[1])
        if found not in known:
            written = [" in ".join(one) for one in known]
            raise UnknownNameError.among("pair", " in ".join(found), written)
        return found


def _check_arguments(
    fields: Fields,
    by: str,
    test: Sequence[Any] | None,
    fraction: float,
    n_seen: int | None,
    seed: int,
    key_added: str,
) -> None:
    check_known([by], get_args(By), "way to split")
    check_seed(seed)
    check_key(key_added)
    if by != "cells" and fields.perturbation_key is None:
        raise InputError(
            f"Splitting by {by!r} needs perturbed cells, but the AnnData was set up without a "
            'perturbation_key; use by="cells".'
        )
    if by in ("context", "pair") and not fields.covariate_keys:
        raise InputError(
            f"Splitting by {by!r} needs covariates; name them in setup_anndata with covariate_keys."
        )
    if n_seen is not None and (by != "combination" or n_seen not in (0, 1, 2)):
        raise InputError(f'n_seen is 0, 1 or 2 and goes with by="combination", not {by!r}.')
    if test is not None and (isinstance(test, str) or not isinstance(test, Collection)):
        raise InputError(f"test is a list, such as [{test!r}], not {type(test).__name__}.")
    if test is not None and len(test) == 0:
        raise InputError("test is empty; name what to hold out, or leave it out for a draw.")
    if test is None:
        check_share(fraction, "fraction")
    if key_added in [key for _, key in fields.columns]:
        raise InputError(
            f"key_added={key_added!r} would overwrite a column that the AnnData was set up with; "
            "choose another name."
        )
