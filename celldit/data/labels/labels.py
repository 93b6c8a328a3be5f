"""The grammar of perturbation labels.

``"A+B"`` says that A and B were done to the same cell. Order, repetition and added controls carry
no meaning, so each set of perturbations has one canonical label: its parts, sorted and joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from celldit.errors import InputError


def split_label(label: str, sep: str = "+") -> tuple[str, ...]:
    """Cut a label into its parts as they are written, controls and repetitions included.

    InputError if it, or one of its parts, is empty.
    """
    pieces = tuple(piece.strip() for piece in label.split(sep))
    if not all(pieces):
        what = "is empty" if not label.strip() else f"has an empty part beside {sep!r}"
        raise InputError(
            f"The perturbation label {label!r} {what}; name what was done to the cell, "
            f"or give another perturbation_sep if {sep!r} belongs to a name."
        )
    return pieces


def parts(label: str, sep: str = "+", control: str = "control") -> tuple[str, ...]:
    """List the perturbations in a label, sorted, each once; none for the control.

    The label is one such as ``"A"``, ``"B+A"``, ``"A+control"`` or the control itself. InputError
    if it, or one of its parts, is empty.
    """
    # Compared whole first: the control's own name may contain the separator.
    if label.strip() == control:
        return ()
    return tuple(sorted({piece for piece in split_label(label, sep) if piece != control}))


def join(names: Iterable[str], sep: str = "+", control: str = "control") -> str:
    """Make the canonical label of a set of perturbations (the control, when there are none)."""
    kept = sorted({name for name in names if name != control})
    return sep.join(kept) if kept else control


def canonical(label: str, sep: str = "+", control: str = "control") -> str:
    """Rewrite a label in its canonical form.

    ``"B + A"`` becomes ``"A+B"``, ``"A+A"`` and ``"A+control"`` become ``"A"``.
    """
    return join(parts(label, sep, control), sep, control)


def canonical_array(labels: Iterable[str], sep: str = "+", control: str = "control") -> np.ndarray:
    """Rewrite N labels in canonical form, object, parsing each distinct label once."""
    values = np.asarray(list(labels), dtype=object)
    return each_distinct(values, lambda label: canonical(str(label), sep, control))


def with_one_control(
    labels: np.ndarray, others: Iterable[str], sep: str = "+", control: str = "control"
) -> np.ndarray:
    """Write the control in place of other names of it, as labels or as parts of them.

    Each label has as many parts as before, so that doses stay beside theirs.
    """
    also = set(others)
    if not also:
        return labels

    def one(label: str) -> str:
        if label in also:
            return control
        pieces = [piece.strip() for piece in label.split(sep)]
        if label == control or not also & set(pieces):
            return label
        return sep.join(control if piece in also else piece for piece in pieces)

    return each_distinct(labels, lambda label: one(str(label)))


def as_text(value: object) -> str:
    """Write a label as text: 0, 0.0 and "0" are one label, surrounding blanks do not count."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def each_distinct(values: Any, change: Callable[[Any], str]) -> np.ndarray:
    """Apply a function to N values, once to each distinct one; object, shape (N,)."""
    codes, distinct = pd.factorize(values)
    table = np.empty(len(distinct), dtype=object)
    table[:] = [change(value) for value in distinct]
    return table[codes] if len(codes) else np.empty(0, dtype=object)
