"""Log fold changes as tables, and which conditions they are asked of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from celldit.arguments import text_list
from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.data.labels.labels import parts
from celldit.errors import InputError, OutOfMemoryError, UnknownNameError, examples
from celldit.inference import request
from celldit.inference.effects.changes import Effect, NewControls, effects_of
from celldit.memory import bound
from celldit.training.trained import Trained

#: Log fold change, in logarithms to the base 2, beyond which a gene counts as changed.
CHANGED = 0.25
#: Memory for a row of a table, with what making it takes.
ROW_BYTES = 100


def check_table(n_conditions: int, n_genes: int) -> None:
    """Raise OutOfMemoryError if a table of so many effects takes more than half of the memory."""
    needed, (most, limit) = ROW_BYTES * n_conditions * n_genes, bound()
    if needed > most / 2:
        raise OutOfMemoryError(
            f"A table of {n_conditions:,} conditions x {n_genes:,} genes takes about "
            f"{needed / 1e9:,.1f} GB, and {limit} is {most / 1e9:,.1f} GB; write it to disk with "
            'out="effects.zarr", or ask for fewer perturbations at a time.'
        )


def effect_table(
    trained: Trained, conditions: Sequence[Condition], controls: NewControls | None = None
) -> pd.DataFrame:
    """What :func:`effects_of` says, as a table.

    Returns
    -------
    DataFrame
        Q·G rows: perturbation, context, gene, log_fold_change, sd, extrapolation, and
        with doses or times beyond_range.
    """
    effects = effects_of(trained, conditions, controls)
    return pd.concat([_frame(trained, effect) for effect in effects], ignore_index=True)


def full_effect_table(
    trained: Trained,
    conditions: Sequence[Condition],
    controls: NewControls | None = None,
    *,
    changed: float = CHANGED,
) -> pd.DataFrame:
    """The table of :func:`effect_table` with how probable each change is.

    `changed` is the size of a change that counts, in logarithms to the base 2. There are
    ``log2_fold_change``, ``log2_sd``, ``z``, ``p_sign``, ``lfsr``, ``p_changed``, ``low``, ``high``
    and ``base_mean`` besides.
    """
    tables = []
    for effect in effects_of(trained, conditions, controls):
        table, spread = _frame(trained, effect), effect.spread
        nothing, n_genes = effect.condition.is_control, len(trained.genes)
        sd_G = spread.sd_G
        columns = {
            "log2_fold_change": spread.mean_G / np.log(2),
            "log2_sd": sd_G / np.log(2),
            "z": spread.mean_G / sd_G,
            "p_sign": spread.sign_G,
            "lfsr": spread.false_sign_G,
            "p_changed": spread.exceeds(changed * np.log(2)),
            "low": spread.quantile(0.05),
            "high": spread.quantile(0.95),
        }
        if nothing:
            values = {"p_sign": 0.5, "lfsr": 1.0}
            columns = {name: np.full(n_genes, values.get(name, 0.0)) for name in columns}
        tables.append(table.assign(**columns, base_mean=effect.base_G))
    whole = pd.concat(tables, ignore_index=True)
    last = ["extrapolation", *(["beyond_range"] if "beyond_range" in whole else [])]
    return whole[[name for name in whole.columns if name not in last] + last]


def obs_of_effect(trained: Trained, effect: Effect) -> dict[str, object]:
    """What an effect is of: columns that are the same for all genes."""
    fields, condition = trained.fields, effect.condition
    ranged = {} if effect.beyond_range is None else {"beyond_range": effect.beyond_range}
    return {
        "perturbation": condition.label(fields.perturbation_sep, fields.control),
        "context": condition.context,
        "extrapolation": str(effect.kind),
        **ranged,
    }


def _frame(trained: Trained, effect: Effect) -> pd.DataFrame:
    said = obs_of_effect(trained, effect)
    return pd.DataFrame(
        {
            "perturbation": said.pop("perturbation"),
            "context": said.pop("context"),
            "gene": list(trained.genes),
            "log_fold_change": effect.spread.mean_G,
            "sd": effect.sd_G,
            **said,
        }
    )


def effect_strata(
    trained: Trained,
    at_hand: set[str],
    contexts: Sequence[str] | str | None,
    controls: NewControls,
) -> list[StratumKey]:
    """The contexts and times that effects are asked in.

    Parameters
    ----------
    trained, controls
        The model, and controls of contexts that training did not see.
    at_hand
        Contexts that have cells.
    contexts
        Those asked for; None for all that have cells and a place to start from.

    Raises
    ------
    InputError, UnknownNameError
        If a context has neither been in training nor controls; if it is not known at all.
    """
    known = {c.stratum for c in trained.frequencies}
    every = sorted({*known, *controls.positions}, key=str)
    names = {context for context, _ in every}
    if contexts is None and not at_hand & names:
        raise InputError(
            f"No context of adata ({examples(sorted(at_hand))}) was in training or has a cell "
            f"labelled {trained.fields.control!r} in adata, so it is not known where effects "
            "start; add control cells."
        )
    chosen = sorted(at_hand & names) if contexts is None else text_list(contexts, "contexts")
    for context in chosen:
        if context in names:
            continue
        if context in at_hand:
            raise InputError(
                f"The context {context!r} was not in training and has no cell labelled "
                f"{trained.fields.control!r} in adata, so it is not known where it starts; add its "
                "control cells, or leave it out of contexts=."
            )
        raise UnknownNameError.among("context", context, sorted(names | at_hand))
    return [key for key in every if key[0] in set(chosen)]


def effect_conditions(
    trained: Trained,
    labels: Sequence[str],
    strata: Sequence[StratumKey],
    dose: object,
    time: float | None,
) -> list[Condition]:
    """Every perturbation in every stratum; `time` in place of theirs where given."""
    fields, found = trained.fields, []
    for label in labels:
        names = parts(label, fields.perturbation_sep, fields.control)
        doses = request.resolve_dose(dose, len(names), fields, label)
        for context, when in strata:
            found.append(Condition(names, doses, context, when if time is None else time))
    return list(dict.fromkeys(found))
