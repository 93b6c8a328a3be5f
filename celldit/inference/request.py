"""What the user asked for, as conditions: checked before any work starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from celldit.arguments import check_kind, text_list
from celldit.conditions import Condition
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.ranges import Ranges
from celldit.data.fields import Fields
from celldit.data.labels.columns import CONTEXT_SEP
from celldit.data.labels.doses import dose_parts
from celldit.data.labels.doubtful import joined_otherwise
from celldit.data.labels.labels import canonical, parts
from celldit.data.store import CellStore
from celldit.errors import InputError, UnknownNameError, closest, examples, outside
from celldit.training.trained import Trained


@dataclass(frozen=True)
class Counterfactuals:
    """What is done to cells: canonical labels of perturbations that were checked."""

    labels: Sequence[str]
    dose: object = None  # as the user gave it, as is the time
    time: float | None = None

    @classmethod
    def of(
        cls,
        trained: Trained,
        perturbations: Sequence[str] | str,
        dose: object = None,
        time: float | None = None,
    ) -> Counterfactuals:
        """Check labels; raises as :func:`labels_of`."""
        return cls(labels_of(trained, perturbations), dose, time)


def labels_of(trained: Trained, perturbations: Sequence[str] | str) -> list[str]:
    """Bring labels into canonical form and refuse those of which nothing is known.

    UnknownNameError if a perturbation was not in training and nothing else is known of it; names
    the closest. InputError if nothing is asked for.
    """
    fields, known = trained.fields, trained.perturbations
    featured, elsewhere = trained.featured, trained.elsewhere
    requested = text_list(perturbations, "perturbations")
    if not requested:
        raise InputError('No perturbation was asked for; pass perturbations=["NAME", ...].')
    known_set = set(known)
    result = []
    for label in requested:
        names = parts(str(label), fields.perturbation_sep, fields.control)
        for part in () if names in elsewhere else names:
            if part in known_set or part in featured or (part,) in elsewhere:
                continue
            if not known and not featured and not elsewhere:
                raise InputError(
                    "This model was trained on unperturbed cells, so it can generate cells but "
                    "knows no perturbation; train on data with a perturbation_key."
                )
            near = closest(part, list(known))
            hint = f" Did you mean {near!r}?" if near else ""
            joined = joined_otherwise(part, {*known, *featured}, fields.perturbation_sep)
            if joined is not None:
                # The closest name would be another combination, which is misleading.
                hint = (
                    f" Combinations are asked for as {fields.perturbation_sep.join(joined[1])!r}."
                )
            raise UnknownNameError(
                f"The perturbation {part!r} was not in training and has no features, so nothing is "
                f"known of it (known: {examples(known, 8)}).{hint} Ask for a known one, or train "
                "with features that have a row for it: "
                'CellDiT(adata, features=cd.pp.gene_features(adata, source="reactome")), or '
                "features= a DataFrame of your own with one row per perturbation."
            )
        result.append(canonical(str(label), fields.perturbation_sep, fields.control))
    return list(dict.fromkeys(result))


def labels_or_all(trained: Trained, perturbations: Sequence[str] | str | None) -> list[str]:
    """:func:`labels_of`, where None stands for all perturbations of training.

    InputError if all are asked for and there are none.
    """
    if perturbations is not None:
        return labels_of(trained, perturbations)
    fields = trained.fields
    seen = (c for c in trained.frequencies if not c.is_control)
    labels = sorted({c.label(fields.perturbation_sep, fields.control) for c in seen})
    if not labels:
        raise InputError(
            "The model was trained without perturbations; give perturbations= that it has "
            "features of, or train it on perturbed cells."
        )
    return labels


def one_label(trained: Trained, label: str, name: str) -> str:
    """One label of :func:`labels_of`, for an argument of that name; InputError if it is not one."""
    check_kind(label, str, name, "the label of one condition, such as 'STAT1'")
    return labels_of(trained, label)[0]


NO_TIME = (
    "time= was given, but the model was trained without time_key; leave it out, or train with one."
)
NO_DOSE = (
    "dose= was given, but the model was trained without dose_key; leave it out, or train with one."
)


def counterfactual_conditions(
    controls: CellStore,
    perturbation: str,
    fields: Fields,
    dose: object = None,
    time: float | None = None,
) -> list[Condition]:
    """The condition of each of N control cells after a perturbation, in its own context.

    A dose is a number, or text with one for each part; required where the training data have doses.
    Without a time each cell keeps its own.
    """
    names = parts(perturbation, fields.perturbation_sep, fields.control)
    doses = resolve_dose(dose, len(names), fields, perturbation)
    time = check_time(time, fields)
    times: Sequence[float | None] = [time] * controls.n_cells
    if time is None and controls.times is not None:
        times = controls.times.tolist()
    return [
        Condition(names, doses, str(context), when)
        for context, when in zip(controls.contexts, times, strict=True)
    ]


def resolve_dose(
    dose: object, n_parts: int, fields: Fields, perturbation: str
) -> tuple[float, ...] | None:
    """One dose for each part, or None where the data have no doses."""
    if fields.dose_key is None:
        if dose is not None:
            raise InputError(NO_DOSE)
        return None
    if n_parts == 0:
        return ()
    if dose is None:
        raise InputError(
            f"The model was trained with doses ({fields.dose_key!r}), so say at which dose "
            f"{perturbation!r} is given: dose=1.0."
        )
    return dose_parts(dose, n_parts, fields.perturbation_sep)


def warn_outside(conditions: Sequence[Condition], trained: Iterable[Condition]) -> None:
    """Warn of times and doses outside those of training."""
    ranges = Ranges.of(trained)
    _check_course(conditions, ranges)
    found = dict.fromkeys(text for c in dict.fromkeys(conditions) for text in ranges.outside(c))
    for text in found:
        assumed = (
            "the effect there is taken to be that at the nearest trained time"
            if text.startswith("Time")
            else "the effect is taken to go on in proportion to log(1 + dose)"
        )
        warnings.warn(f"{text}; {assumed}, an extrapolation.", UserWarning, stacklevel=outside())


def _check_course(conditions: Sequence[Condition], ranges: Ranges) -> None:
    """Refuse other times where all training cells are of one.

    InputError says what to train on.
    """
    if ranges.time is None or ranges.time[0] != ranges.time[1]:
        return
    for condition in conditions:
        if condition.time is not None and condition.time != ranges.time[0]:
            raise InputError(
                f"Time {condition.time:g} was asked for, but all training cells are of time "
                f"{ranges.time[0]:g}, so nothing is known of any other; train on cells of two "
                "times or more."
            )


def check_time(time: object, fields: Fields) -> float | None:
    """A time as a number, or None.

    InputError if it is not a finite number, or the data have no times.
    """
    if time is None:
        return None
    if fields.time_key is None:
        raise InputError(NO_TIME)
    try:
        number = float(str(time))
    except ValueError:
        number = np.nan
    if isinstance(time, bool) or not np.isfinite(number):
        raise InputError(
            f"time={time!r} is not a finite number; give it in the unit of the column "
            f"{fields.time_key!r}, such as 10.5."
        )
    return number


def composition(
    frequencies: Mapping[Condition, int],
    perturbation: str | None,
    covariates: Mapping[str, str] | None,
    fields: Fields,
    dose: object = None,
    time: float | None = None,
) -> tuple[list[Condition], np.ndarray]:
    """Conditions to generate, and the share of each.

    The shares follow `frequencies`, cells of each condition in training; a perturbation that was
    not seen in the wanted contexts follows the controls. Perturbation, dose and time are None for
    all, as they occur; `covariates` are wanted values of some, such as ``{"cell_type": "B"}``.
    """
    if covariates is not None and not isinstance(covariates, Mapping):
        raise InputError(
            "covariates must be values by the names of covariates, such as "
            f'{{"cell_type": "B"}}, not {type(covariates).__name__}.'
        )
    wanted = dict(covariates or {})
    unknown = [key for key in wanted if key not in fields.covariate_keys]
    if unknown:
        raise UnknownNameError.among("covariate", unknown[0], fields.covariate_keys)
    positions = {fields.covariate_keys.index(key): str(value) for key, value in wanted.items()}
    values = [_values(c.context, fields) for c in frequencies]
    for position, value in positions.items():
        seen = sorted({v[position] for v in values})
        if value not in seen:
            raise UnknownNameError.among(fields.covariate_keys[position], value, seen)
    if dose is not None and fields.dose_key is None:
        raise InputError(NO_DOSE)
    if dose is not None and not parts(
        fields.control if perturbation is None else perturbation,
        fields.perturbation_sep,
        fields.control,
    ):
        raise InputError(
            f'dose={dose!r} is a dose of nothing; say of what, with perturbation="NAME", or leave '
            "dose= out."
        )
    time = check_time(time, fields)
    inside = {
        c: n
        for (c, n), v in zip(frequencies.items(), values, strict=True)
        if all(v[position] == value for position, value in positions.items())
    }
    if time is not None:
        at_time = {c: n for c, n in inside.items() if c.time == time}
        # A time between those of training: the composition of all times.
        inside = at_time or _moved(inside, lambda c: replace(c, time=time))
    if perturbation is None:
        chosen = inside
    else:
        names = parts(perturbation, fields.perturbation_sep, fields.control)
        doses = None
        if dose is not None:
            doses = resolve_dose(dose, len(names), fields, perturbation)
        chosen = {
            c: n
            for c, n in inside.items()
            if c.parts == names and (doses is None or c.doses == doses)
        }
        if not chosen:
            doses = resolve_dose(dose, len(names), fields, perturbation) if names else None
            base = {c: n for c, n in inside.items() if c.is_control} or inside
            chosen = _moved(base, lambda c: replace(c, parts=names, doses=doses))
    if not chosen:
        raise InputError(
            f"No training cells have {dict(wanted)!r} together; ask for a combination of "
            "covariates that occurs."
        )
    counts = np.array(list(chosen.values()), dtype=np.float64)
    return list(chosen), counts / counts.sum()


def _values(context: str, fields: Fields) -> list[str]:
    """The value of each covariate; a single one may hold what joins several."""
    return [context] if len(fields.covariate_keys) == 1 else context.split(CONTEXT_SEP)


def _moved(
    frequencies: Mapping[Condition, int], move: Callable[[Condition], Condition]
) -> dict[Condition, int]:
    """Frequencies after every condition was changed; those that became equal add up."""
    result: dict[Condition, int] = {}
    for condition, n in frequencies.items():
        result[move(condition)] = result.get(move(condition), 0) + n
    return result


def obs_of(
    conditions: Sequence[Condition], kinds: Sequence[Extrapolation], fields: Fields
) -> pd.DataFrame:
    """Columns that say what each predicted cell is, under the names of the training data."""
    columns: dict[str, object] = {}
    sep = fields.perturbation_sep
    if fields.perturbation_key is not None:
        labels = [c.label(sep, fields.control) for c in conditions]
        columns[fields.perturbation_key] = pd.Categorical(labels)
    contexts = [_values(c.context, fields) for c in conditions]
    for i, key in enumerate(fields.covariate_keys):
        columns[key] = pd.Categorical([values[i] for values in contexts])
    if fields.dose_key is not None:
        texts = [sep.join(f"{d:g}" for d in c.doses or ()) or "0" for c in conditions]
        single = all(len(c.doses or ()) <= 1 for c in conditions)
        columns[fields.dose_key] = [float(t) for t in texts] if single else pd.Categorical(texts)
    if fields.time_key is not None:
        columns[fields.time_key] = [c.time for c in conditions]
    columns["extrapolation"] = pd.Categorical([str(k) for k in kinds])
    return pd.DataFrame(columns)
