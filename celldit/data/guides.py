"""From guides to their targets: ``"STAT1g2"`` to ``"STAT1"``, ``"IFNGR1g1+NT"`` to ``"IFNGR1"``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from celldit.data.labels import join, split_label
from celldit.errors import InputError

__all__ = ["CONTROL_GUIDES", "GUIDE", "merge_guide_labels", "target_of"]

GUIDE = r"(?P<target>.+?)(?:[_.\- ](?i:sgrna|grna|guide|sg|g)[_.\-]?\d+|(?<![a-z])s?g\d+|_\d+)"
"""How guides are usually written: ``STAT1g2``, ``STAT1_sg1``, ``STAT1-gRNA-3``, ``STAT1_2``.

A bare ``g2`` counts only after a capital letter or a digit, so that the mouse gene ``Abcg2`` keeps
its name, and so does ``NKX2-1``."""

CONTROL_GUIDES = (
    "NT",
    "NTC",
    "non-targeting",
    "non_targeting",
    "nontargeting",
    "safe-targeting",
    "scrambled",
    "control",
    "ctrl",
)
"""Names of guides that target nothing, whatever their case."""


def target_of(name: str, pattern: re.Pattern[str]) -> str:
    """The target of one guide; a name that is not a guide's stays as it is.

    Raises
    ------
    InputError
        If the pattern finds an empty target.
    """
    found = pattern.fullmatch(name)
    if found is None:
        return name
    target = found["target"]
    if not target:
        raise InputError(f"pattern={pattern.pattern!r} finds no target in the guide {name!r}.")
    return target


def merge_guide_labels(
    labels: Iterable[object],
    *,
    pattern: str = GUIDE,
    control: str = "control",
    control_guides: Sequence[str] = CONTROL_GUIDES,
    sep: str = "+",
) -> np.ndarray:
    """Rewrite labels of guides as canonical labels of targets.

    Parameters
    ----------
    labels
        N labels, each a guide or several joined by `sep`.
    pattern
        Regular expression that a whole guide's name matches, with a group ``target``.
    control
        What cells are called in which nothing is targeted.
    control_guides
        Names, before or after the guide's number is cut off, that mean the control; case does not
        matter.
    sep
        What stands between two guides of one cell.

    Returns
    -------
    numpy.ndarray of object, shape (N,)

    Raises
    ------
    InputError
        If the pattern is not a regular expression with a group ``target``, or a label is empty.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"pattern={pattern!r} is not a regular expression: {error}.") from error
    if "target" not in compiled.groupindex:
        raise InputError(
            f"pattern={pattern!r} has no group called target; write it as "
            r'"(?P<target>.+)_sg\d+".'
        )
    nothing = {name.casefold() for name in (*control_guides, control)}
    codes, distinct = pd.factorize(np.asarray(list(labels), dtype=object), use_na_sentinel=False)
    table = np.empty(len(distinct), dtype=object)
    for i, label in enumerate(distinct):
        if pd.isna(label):
            raise InputError("A cell has no guide label; name what it was given, or drop it.")
        targets = []
        for guide in split_label(str(label), sep):
            target = target_of(guide, compiled)
            if not {guide.casefold(), target.casefold()} & nothing:
                targets.append(target)
        table[i] = join(targets, sep, control)
    return table[codes] if len(codes) else np.empty(0, dtype=object)
