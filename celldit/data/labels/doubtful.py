"""Perturbation labels that may not mean what they would be taken for, looked at before any is cut.

A label that is split where it should not be, or not where it should, gives a model of other
perturbations than those of the experiment, and nothing later shows it.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Sequence

from celldit.data.labels.guides import is_control_guide
from celldit.errors import InputError, examples, outside

#: What joins perturbations in the files of other tools.
_JOINERS = "_;,|&/:+-. "
#: Tried in this order where another separator must be suggested.
_SUGGESTED = ("+", ";", "|", "&", ",", "__", " + ", "@@")
#: What is longer is no name, and would be looked at for minutes.
_LONGEST = 1000
_OPEN, _CLOSE = "([{", ")]}"
#: How programs write that nothing is known of a cell.
_MISSING = frozenset(["<na>", "n/a", "na", "nan", "nat", "null"])
# fmt: off
_UNASSIGNED = frozenset([
    "ambiguous", "doublet", "doublets", "low quality", "missing", "multiplet", "multiplets",
    "multiple", "negative", "no guide", "no_guide", "none", "not assigned", "unassigned", "unclear",
    "undefined", "undetermined", "unknown", "unmapped",
])
_CONTROLS = frozenset([
    "control", "controls", "ctl", "ctrl", "dmso", "empty vector", "mock", "neg", "non-treated",
    "nontreated", "no treatment", "pbs", "sham", "saline", "solvent", "unperturbed", "unstim",
    "unstimulated", "untreated", "vehicle", "water", "wildtype", "wt",
])
# fmt: on


def usual_control(label: str) -> bool:
    """Whether a label is one that laboratories give to unperturbed cells."""
    return (len(label) <= _LONGEST and _folded(label) in _CONTROLS) or is_control_guide(label)


def check_split(labels: Iterable[str], sep: str, control: str) -> None:
    """Refuse distinct labels as written that the separator tears apart.

    InputError if it lies inside brackets, or at an end of a label; shows three.
    """
    known = list(labels)
    torn = [
        label
        for label in known
        if sep in label and label != control and _is_torn([p.strip() for p in label.split(sep)])
    ]
    if torn:
        shown = "; ".join(f"{label!r} into {_pieces(label, sep)}" for label in torn[:3])
        rest = f" and {len(torn) - 3} more" if len(torn) > 3 else ""
        raise InputError(
            f"{sep!r} belongs to the names of {len(torn)} perturbations, which it would split "
            f"({shown}{rest}); pass perturbation_sep={_free_sep(known, sep)!r}, which no label "
            "holds, and join combinations by it."
        )


def warn_doubtful(labels: Iterable[str], sep: str, controls: Sequence[str], key: str) -> None:
    """Warn of distinct labels in the column `key` that look as if they meant something else."""
    known = [n for n in labels if n not in controls and len(n) <= _LONGEST]
    for warning in (
        *_split_in_doubt(known, sep),
        *_joined_otherwise(known, sep, controls),
        *_not_known(known, key),
        *_further_controls(known, sep, controls),
        *_alike(known, sep, controls, key),
    ):
        warnings.warn(warning, UserWarning, stacklevel=outside())


def joined_otherwise(label: str, known: Collection[str], sep: str) -> tuple[str, list[str]] | None:
    """What joins a label of which all parts are known, and the parts; None if nothing does."""
    for joiner in _JOINERS:
        if joiner not in label or joiner in sep:
            continue
        run = re.escape(joiner) + "+"
        pieces, between = [p.strip() for p in re.split(run, label)], re.search(run, label)
        if between is not None and all(piece in known for piece in pieces):
            return between[0], pieces
    return None


def _split_in_doubt(labels: Sequence[str], sep: str) -> list[str]:
    """Labels that are split into what is never a label."""
    whole, split = set(labels), {n: _parts(n, sep) for n in labels if sep in n}
    alone = {n: pieces for n, pieces in split.items() if not whole & set(pieces)}
    pieces = [piece for n in split for piece in set(split[n])]
    # One combination with a part that is a label, or a part in several, shows what `sep` is for.
    if len(alone) == len(split) and len(set(pieces)) == len(pieces):
        doubtful = list(alone)
    else:
        doubtful = [n for n in alone if _is_odd(n, sep)]
    if not doubtful:
        return []
    shown = "; ".join(f"{n!r} into {_pieces(n, sep)}" for n in doubtful[:3])
    return [
        f"{len(doubtful)} labels are split at {sep!r} into what is never a label itself ({shown}); "
        f"if {sep!r} belongs to names, pass perturbation_sep={_free_sep(labels, sep)!r}."
    ]


def _joined_otherwise(labels: Sequence[str], sep: str, controls: Sequence[str]) -> list[str]:
    """Labels that are several others, joined by another separator."""
    known = {*labels, *controls}
    found: dict[str, list[str]] = {}
    for label in labels:
        joined = joined_otherwise(label, known, sep)
        if joined is not None and set(joined[1]) - set(controls):
            found.setdefault(joined[0], []).append(label)
    return [
        f"{len(several)} labels are other labels joined by {joiner!r} ({examples(several)}), and "
        f"are taken for perturbations of their own, since perturbation_sep={sep!r}; if they are "
        f"combinations, pass perturbation_sep={joiner!r}."
        for joiner, several in found.items()
    ]


def _not_known(labels: Sequence[str], key: str) -> list[str]:
    """Labels that say that nobody knows what was done to the cell."""
    found = [n for n in labels if _folded(n) in _MISSING | _UNASSIGNED]
    if not found:
        return []
    return [
        f"The labels {examples(found)} in adata.obs[{key!r}] read as if it were not known what was "
        "done to the cells, but are taken for perturbations; drop those cells: "
        f"adata = adata[~adata.obs[{key!r}].astype(str).isin({found[:20]!r})].copy()"
    ]


def _further_controls(labels: Sequence[str], sep: str, controls: Sequence[str]) -> list[str]:
    """Labels of controls beside those that were named."""
    found = [n for n in labels if sep not in n and usual_control(n)]
    found = [n for n in found if _folded(n) not in {_folded(c) for c in controls}]
    if not found:
        return []
    return [
        f"The labels {examples(found)} read like those of controls, but are taken for "
        f"perturbations; if they are controls, pass control={[*controls, *found[:20]]!r}."
    ]


def _alike(labels: Sequence[str], sep: str, controls: Sequence[str], key: str) -> list[str]:
    """Names that differ in case or blanks only."""
    names = {*controls, *(part for label in labels for part in _parts(label, sep))}
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(_folded(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if not alike:
        return []
    shown = "; ".join(" and ".join(map(repr, group)) for group in alike[:3])
    first = next((c for c in controls if c in alike[0]), alike[0][0])
    other = next(name for name in alike[0] if name != first)
    return [
        f"{len(alike)} perturbations are written in several ways ({shown}), which differ in case "
        "or blanks only but are taken for different ones; write them alike: "
        f"adata.obs[{key!r}] = adata.obs[{key!r}].astype(str).replace({{{other!r}: {first!r}}})"
    ]


def _parts(label: str, sep: str) -> list[str]:
    return [piece.strip() for piece in label.split(sep)]


def _pieces(label: str, sep: str) -> str:
    return " and ".join(map(repr, _parts(label, sep)))


def _is_torn(pieces: Sequence[str]) -> bool:
    balanced = [sum(p.count(b) for b in _OPEN) == sum(p.count(b) for b in _CLOSE) for p in pieces]
    whole = sum(sum(p.count(b) for b in _OPEN) - sum(p.count(b) for b in _CLOSE) for p in pieces)
    return not all(pieces) or (whole == 0 and not all(balanced))


def _is_odd(label: str, sep: str) -> bool:
    """Whether the pieces do not look like names: blanks on one side only, or stray marks."""
    bare = sep.strip()
    lopsided = (
        bare != "" and re.search(rf"\S{re.escape(bare)}\s|\s{re.escape(bare)}\S", label) is not None
    )
    return lopsided or any(
        re.match(r"[-/,;:.')\]}]", piece) or not re.search(r"\w", piece)
        for piece in _parts(label, sep)
    )


def _free_sep(labels: Sequence[str], sep: str) -> str:
    """A separator that no label holds."""
    free = (s for s in _SUGGESTED if s != sep and not any(s in label for label in labels))
    return next(free, "###")


def _folded(name: str) -> str:
    """The same for names that differ in case, blanks or invisible letters only."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", name) if c.isprintable())
    return " ".join(visible.casefold().split())
