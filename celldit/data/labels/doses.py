"""Doses: a number for a cell, or one number for each perturbation of the cell (``"1+0.5"``)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from celldit.data.labels.labels import as_text, split_label
from celldit.errors import InputError


def dose_parts(dose: object, n_parts: int, sep: str = "+") -> tuple[float, ...]:
    """Read a dose, such as ``"1+0.5"``, as one number for each of a label's parts.

    A single number is repeated. InputError if a number is missing, negative or infinite, or if
    there are neither one nor ``n_parts``.
    """
    values = _numbers(dose, sep)
    if len(values) == 1:
        return values * n_parts
    if len(values) != n_parts:
        raise InputError(
            f"The dose {dose!r} has {len(values)} numbers for {n_parts} perturbations; give one "
            "number, or one for each."
        )
    return values


def canonical_doses(
    doses: Iterable[object], labels: Iterable[str], sep: str = "+", control: str = "control"
) -> np.ndarray:
    """Bring the doses of N labels as written into the order of the canonical labels.

    ``"B+A"`` with ``"1+0.5"`` is ``"A+B"`` with ``"0.5+1"``. Numbers that belong to the control are
    dropped, and a control without a dose has dose 0. Shape (N,), float64 when every cell has a
    single number, object (str) otherwise.

    InputError if a dose cannot be read, or one perturbation is named twice with different doses.
    """
    pairs = pd.MultiIndex.from_arrays(
        [np.asarray(list(labels), dtype=object), np.asarray(list(doses), dtype=object)]
    )
    codes, distinct = pd.factorize(pairs)
    rewritten = [_canonical(dose, str(label), sep, control) for label, dose in distinct]
    if all(len(numbers) == 1 for numbers in rewritten):
        return np.array([numbers[0] for numbers in rewritten], dtype=np.float64)[codes]
    table = np.empty(len(rewritten), dtype=object)
    table[:] = [sep.join(as_text(number) for number in numbers) for numbers in rewritten]
    return table[codes]


def _canonical(dose: object, label: str, sep: str, control: str) -> tuple[float, ...]:
    pieces = (control,) if label.strip() == control else split_label(label, sep)
    if pd.isna(dose):
        if all(piece == control for piece in pieces):
            return (0.0,)
        raise InputError(
            f"A cell with the perturbation {label!r} has no dose; only controls may have none, so "
            "give it one, or drop such cells."
        )
    if all(piece == control for piece in pieces):
        return _numbers(dose, sep)[:1]
    values = dose_parts(dose, len(pieces), sep)
    by_name: dict[str, float] = {}
    for piece, value in zip(pieces, values, strict=True):
        if piece != control and by_name.setdefault(piece, value) != value:
            raise InputError(
                f"The label {label!r} names {piece!r} twice with different doses ({dose!r})."
            )
    return tuple(by_name[name] for name in sorted(by_name))


def _numbers(dose: object, sep: str) -> tuple[float, ...]:
    # A number may itself be written with the separator, as in 1e+2, so try it whole first.
    single = _number(dose)
    numbers = [single] if single is not None else [_number(p) for p in str(dose).split(sep)]
    if any(number is None or not np.isfinite(number) or number < 0 for number in numbers):
        raise InputError(
            f"The dose {dose!r} is not a number of at least 0, nor several such numbers joined by "
            f"{sep!r}; name the column that holds doses as dose_key, or write them as numbers."
        )
    return tuple(number for number in numbers if number is not None)


def _number(text: object) -> float | None:
    if isinstance(text, bool):
        return None
    try:
        return float(str(text))
    except ValueError:
        return None
