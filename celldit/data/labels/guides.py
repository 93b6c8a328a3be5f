"""From guides to their targets: ``"STAT1g2"`` to ``"STAT1"``, ``"IFNGR1g1+NT"`` to ``"IFNGR1"``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from celldit.data.labels.labels import join, split_label
from celldit.errors import InputError, examples

CONTROL_GUIDES = (
    "NT",
    "NTC",
    "non-targeting",
    "non-target",
    "non-targeting control",
    "non-targeting human",
    "non-targeting mouse",
    "non-targeting control guide for human",
    "non-targeting control guide for mouse",
    "no-target",
    "no site",
    "one non-gene site",
    "one intergenic site",
    "intergenic",
    "safe",
    "safe-targeting",
    "safe harbor",
    "AAVS1",
    "Rosa26",
    "scr",
    "scramble",
    "scrambled",
    "neg ctrl",
    "neg control",
    "negative ctrl",
    "negative control",
    "control",
    "ctrl",
    "luciferase",
    "lacZ",
    "GFP",
    "EGFP",
)
"""Names of guides that target no gene; case, blanks, dashes and numbers behind do not matter."""

#: Longer ones are no guides' names, and would be searched through for minutes.
_LONGEST = 200
_WORD = r"(?i:sgrna|grna|crrna|guide|sg|g)"
#: How a guide's name begins, before its target, as in ``sgSTAT1-1`` and ``p_sgCREB1_2``.
_BEFORE = re.compile(
    r"(?:p_)?(?:(?:sgRNA|gRNA|guide)[_.\- ]|sg[_\-](?=\w)|sg(?=[A-Z]))(?P<rest>.+)"
)
#: How it ends, behind its target. The first that fits counts.
_BEHIND = tuple(
    re.compile(rf"(?P<target>.+?){end}")
    for end in (
        # Weissman: STAT1_+_191878500.23-P1P2, STAT1_P1P2, STAT1_-_1234.23-ENST00000361099.3
        r"_[+-]_\d+(?:\.\d+)*-(?:P1P2|P1|P2|all|ENST[\w.,]+)",
        r"_(?:P1P2|P1|P2)",
        # The protospacer itself: STAT1_ACGTACGTACGTACGTACGT
        r"[_\-:|][ACGT]{17,23}",
        rf"[_.\- ]{_WORD}[_.\- ]?\d+",
        # A bare g2 only after a capital letter or a digit: the mouse gene Abcg2 keeps its name.
        r"(?<![a-z])s?g\d+",
        r"[_#|:]\d+",
    )
)
#: The number alone, which ends the names of some genes, too: ``STAT1-2``, but ``NKX2-1``.
_NUMBER = re.compile(r"(?P<target>.+?)[\-.]\d+")
_GENES_WITH_NUMBERS = re.compile(
    r"(?i:NKX\d|KRTAP\d+|H[123]|ERV\w*|IG[HKL]V\d+|TR[ABDG]V\d+|RN\w+\d|SNOR[AD]\d+|RP\d+)-\d+"
    r"|(?:A[CLPFJ]\d{5,6}|(?:RP|CT)\w*-\w+)\.\d+"
)
_TWICE = re.compile(r"(?P<target>.+)_(?P=target)")
#: Two guides of one vector, written twice as in ``KLF1_MAP2K6__KLF1_MAP2K6``.
_VECTOR = re.compile(r"(?P<pair>[^_]+_[^_]+)__(?P=pair)")
#: A strand within a Weissman name, whose plus joins nothing.
_STRAND = re.compile(r"_\+_(?=\d)")
_HELD = "_\0_"


def _bare(name: str) -> str:
    """A control's name without case, punctuation, ``sg`` before it and numbers behind it."""
    if len(name) > _LONGEST:
        return name
    letters = re.sub(r"[\W_]", "", name.casefold())
    return re.sub(r"\d+$", "", re.sub(r"^(?:p?sg(?:rna)?|human|mouse)", "", letters))


_CONTROLS = frozenset(_bare(name) for name in CONTROL_GUIDES)


def is_control_guide(name: str) -> bool:
    """Whether a name is that of a guide that targets nothing in one of the common libraries."""
    return _bare(name) in _CONTROLS


@dataclass(frozen=True)
class GuideNames:
    """How guides are named.

    `pattern` is a regular expression that a whole guide's name matches, with a group ``target``;
    None for the styles of the common libraries. `is_gene` says whether a name is a gene's, where a
    number may belong to either. InputError if the pattern is no such expression.
    """

    pattern: str | None = None
    control_guides: Sequence[str] = CONTROL_GUIDES
    is_gene: Callable[[str], bool] = lambda name: False
    compiled: re.Pattern[str] | None = field(init=False, default=None)
    nothing: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "nothing", frozenset(map(_bare, self.control_guides)))
        if self.pattern is None:
            return
        try:
            compiled = re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(
                f"pattern={self.pattern!r} is not a regular expression: {error}."
            ) from error
        if "target" not in compiled.groupindex:
            raise InputError(
                f"pattern={self.pattern!r} has no group called target; write it as "
                r'"(?P<target>.+)_sg\d+".'
            )
        object.__setattr__(self, "compiled", compiled)

    def targets_nothing(self, guide: str) -> bool:
        """Whether a guide is a control, by its name or that of its target."""
        return bool({_bare(guide), _bare(self.target_of(guide))} & self.nothing)

    def target_of(self, guide: str) -> str:
        """The target of one guide; a name that is not a guide's stays as it is.

        InputError if the pattern finds an empty target.
        """
        if len(guide) > _LONGEST:
            return guide
        if self.compiled is not None:
            found = self.compiled.fullmatch(guide)
            if found is None:
                return guide
            if not found["target"]:
                raise InputError(
                    f"pattern={self.pattern!r} finds no target in the guide {guide!r}."
                )
            return found["target"]
        before = _BEFORE.fullmatch(guide)
        name = guide if before is None else before["rest"]
        cut = next((m["target"] for m in (p.fullmatch(name) for p in _BEHIND) if m), name)
        if cut == name and not self.is_gene(name) and not _GENES_WITH_NUMBERS.fullmatch(name):
            number = _NUMBER.fullmatch(name)
            cut = name if number is None else number["target"]
        twice = _TWICE.fullmatch(cut)
        return cut if twice is None else twice["target"]


def merge_guide_labels(
    labels: Iterable[object],
    names: GuideNames | None = None,
    *,
    control: str = "control",
    sep: str | None = None,
) -> pd.DataFrame:
    """Find what is targeted by each distinct label of guides.

    `sep` stands between two guides of one cell; None for what is found to join guides, or "+".

    The table has one row for each distinct label, in the order of their first cells: ``guide``,
    ``target`` (several joined by ``"+"``, `control` where nothing is targeted), ``n_cells``, and
    ``changed``, whether anything was cut off or found to be a control.

    InputError if a label is empty or missing, another separator joins guides, or a target holds a
    plus.
    """
    names = GuideNames() if names is None else names
    counts = pd.Series(np.asarray(list(labels), dtype=object)).value_counts(
        sort=False, dropna=False
    )
    if any(pd.isna(label) for label in counts.index):
        raise InputError("A cell has no guide label; name what it was given, or drop it.")
    texts = [str(label) for label in counts.index]
    found = _joiners(texts, names)
    if sep is None:
        sep = next(iter(found), "+")
    for joiner, joined in found.items():
        if joiner != sep.strip():
            raise InputError(
                f"{len(joined)} labels hold several guides joined by {joiner!r} "
                f"({examples(joined)}), not by {sep!r}; pass sep={joiner!r}."
            )
    rows = []
    for label, n_cells in zip(texts, counts, strict=True):
        targets, changed = [], False
        for guide in _guides(label, sep):
            if names.targets_nothing(guide) or guide == control:
                changed = True
                continue
            target = names.target_of(guide)
            if "+" in target:
                raise InputError(
                    f"The target {target!r} holds '+', which joins targets; give a pattern= that "
                    "finds a target without it."
                )
            changed |= target != guide
            targets.append(target)
        rows.append((label, join(targets, "+", control), int(n_cells), changed))
    return pd.DataFrame(rows, columns=["guide", "target", "n_cells", "changed"])


def _guides(label: str, sep: str) -> list[str]:
    vector = _VECTOR.fullmatch(label) if len(label) <= _LONGEST else None
    if vector is not None:
        return vector["pair"].split("_")
    held = _STRAND.sub(_HELD, label) if "+" in sep else label
    return [guide.replace(_HELD, "_+_") for guide in split_label(held, sep)]


def _joiners(labels: Sequence[str], names: GuideNames) -> dict[str, list[str]]:
    """What joins guides, with the labels in which it does.

    Cutting the number off the last guide alone would pass for a target.
    """
    found: dict[str, list[str]] = {}
    for joiner in "+;,|&":
        for label in labels:
            pieces = [p.strip() for p in _STRAND.sub(_HELD, label).split(joiner)]
            if len(pieces) > 1 and all(len(p) > 1 and _is_guide(p, names) for p in pieces):
                found.setdefault(joiner, []).append(label)
    return found


def _is_guide(name: str, names: GuideNames) -> bool:
    return names.targets_nothing(name) or names.target_of(name) != name or names.is_gene(name)
