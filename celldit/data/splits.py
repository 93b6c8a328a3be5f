"""Splits: which cells a model may learn from, and which it is judged by.

The unit held out is what the model is asked to generalise over. Control cells stay in training,
since a prediction starts from them, unless single cells are split.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import anndata as ad
import pandas as pd

from celldit.data.fields import Fields
from celldit.data.holdout import (
    Conditions,
    Draw,
    hold_out_cells,
    hold_out_combinations,
    hold_out_contexts,
    hold_out_pairs,
    hold_out_perturbations,
)
from celldit.errors import InputError, UnknownNameError

By = Literal["perturbation", "combination", "context", "pair", "cells"]
_WAYS = ("perturbation", "combination", "context", "pair", "cells")


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
    _check_arguments(fields, by, test, fraction, n_seen, key_added)
    conditions = Conditions.from_anndata(adata, fields)
    draw = Draw(test=None if test is None else tuple(test), fraction=fraction, seed=seed)
    if by == "cells":
        held_out = hold_out_cells(conditions, draw)
    else:
        if by == "combination":
            chosen = hold_out_combinations(conditions, draw, n_seen)
        else:
            chosen = _STRATEGIES[by](conditions, draw)
        held_out = chosen & ~conditions.is_control
        if not (~conditions.is_control & ~held_out).any():
            raise InputError(
                f"Holding this out by {by!r} leaves no perturbed cell to train on; hold out less."
            )
    sides = pd.Categorical.from_codes(held_out.astype(int), categories=["train", "test"])
    with warnings.catch_warnings():
        # Writing to a view makes it an AnnData of its own, which is what the caller asks for here.
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        adata.obs[key_added] = sides


_STRATEGIES = {
    "perturbation": hold_out_perturbations,
    "context": hold_out_contexts,
    "pair": hold_out_pairs,
}


def _check_arguments(
    fields: Fields,
    by: str,
    test: Sequence[Any] | None,
    fraction: float,
    n_seen: int | None,
    key_added: str,
) -> None:
    if by not in _WAYS:
        raise UnknownNameError.among("way to split", by, _WAYS)
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
    if isinstance(test, str):
        raise InputError(f"test is a list, such as [{test!r}], not a text.")
    if test is not None and len(test) == 0:
        raise InputError("test is empty; name what to hold out, or leave it out for a draw.")
    if test is None and not 0 < fraction < 1:
        raise InputError(f"fraction must lie between 0 and 1, not {fraction!r}.")
    used = (
        fields.perturbation_key,
        fields.size_factor_key,
        fields.dose_key,
        fields.time_key,
        *fields.covariate_keys,
    )
    if key_added in used:
        raise InputError(
            f"key_added={key_added!r} would overwrite a column that the AnnData was set up with; "
            "choose another name."
        )
