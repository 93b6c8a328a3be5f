"""Log fold changes as tables, and which conditions they are asked of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
PROBABILITIES = (
    "log2_fold_change", "log2_sd", "z", "p_sign", "lfsr", "p_changed", "low", "high",
)  # fmt: skip
#: Memory for a row of a table while it is made, in bytes, as tracemalloc measures it; and of one
#: with probabilities.
ROW_BYTES, FULL_ROW_BYTES = 370, 700


def check_table(n_conditions: int, n_genes: int, row_bytes: int = ROW_BYTES) -> None:
    """Raise OutOfMemoryError if a table of so many effects takes more than the memory."""
    n_rows = n_conditions * n_genes
    needed, (most, limit) = row_bytes * n_rows, bound()
    if needed > most:
        raise OutOfMemoryError(
            f"A table of {n_conditions:,} conditions x {n_genes:,} genes has {n_rows:,} rows and "
            f"takes about {needed / 1e9:,.1f} GB while it is made; {limit} is {most / 1e9:,.1f} "
            'GB. Write it to disk with model.predict_effects(..., out="effects.zarr"), or ask for '
            "fewer perturbations or contexts at a time."
        )


def effect_table(
    trained: Trained, conditions: Sequence[Condition], controls: NewControls | None = None
) -> pd.DataFrame:
    """What :func:`effects_of` says, as a table of Q·G rows.

    Its columns are perturbation, context, gene, log_fold_change, sd, extrapolation, and with doses
    or times beyond_range.
    """
    return _joined(_columns(trained, one) for one in effects_of(trained, conditions, controls))


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
    effects = effects_of(trained, conditions, controls)
    whole = _joined(
        {**_columns(trained, one), **_probabilities(one, changed), "base_mean": one.base_G}
        for one in effects
    )
    last = ["extrapolation", *(["beyond_range"] if "beyond_range" in whole else [])]
    return whole[[name for name in whole.columns if name not in last] + last]


def _probabilities(effect: Effect, changed: float) -> dict[str, np.ndarray]:
    spread, sd_G = effect.spread, effect.spread.sd_G
    if effect.condition.is_control:
        nothing_G = np.zeros_like(sd_G)
        sure = {"p_sign": nothing_G + 0.5, "lfsr": nothing_G + 1.0}
        return {name: sure.get(name, nothing_G) for name in PROBABILITIES}
    columns = (
        spread.mean_G / np.log(2),
        sd_G / np.log(2),
        # Where nothing can differ, as in a panel of one gene, nothing does.
        np.divide(spread.mean_G, sd_G, out=np.zeros_like(sd_G), where=sd_G > 0),
        spread.sign_G,
        spread.false_sign_G,
        spread.exceeds(changed * np.log(2)),
        spread.quantile(0.05),
        spread.quantile(0.95),
    )
    return dict(zip(PROBABILITIES, columns, strict=True))


def _joined(frames: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One table of the columns of many effects; a table for each would take longer than they do."""
    columns: dict[str, list[np.ndarray]] = {}
    for frame in frames:
        n_genes = len(frame["gene"])
        for name, values in frame.items():
            each = (
                values
                if np.ndim(values)
                else np.full(n_genes, values, object if isinstance(values, str) else None)
            )
            columns.setdefault(name, []).append(each)
    return pd.DataFrame({name: np.concatenate(parts) for name, parts in columns.items()})


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


def _columns(trained: Trained, effect: Effect) -> dict[str, Any]:
    said = obs_of_effect(trained, effect)
    return {
        "perturbation": said.pop("perturbation"),
        "context": said.pop("context"),
        "gene": np.array(trained.genes, dtype=object),
        "log_fold_change": effect.spread.mean_G,
        "sd": effect.sd_G,
        **said,
    }


def effect_strata(
    trained: Trained,
    at_hand: set[str],
    contexts: Sequence[str] | str | None,
    controls: NewControls,
) -> list[StratumKey]:
    """The contexts and times that effects are asked in, where the contexts `at_hand` have cells.

    None for `contexts` are all that have cells and a place to start from. InputError if a context
    has neither been in training nor controls; UnknownNameError if it is not known at all.
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
