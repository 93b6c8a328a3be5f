"""Matching the genes of two data sets by name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from celldit.errors import InputError, examples

#: Columns of ``var`` that say what was measured, as Cell Ranger, muon and others call them.
FEATURE_COLUMNS = ("feature_types", "feature_type", "modality", "feature_class")
_NO_GENE = re.compile(
    r"antibod|\badt\b|\bhto\b|hashtag|crispr|\bguide|sgrna|multiplexing|\bpeaks?\b|\batac\b"
    r"|^prot(ein)?s?$|\bcustom\b|\bvdj\b|antigen|\bcmo\b",
    re.IGNORECASE,
)
#: How antibodies of the usual panels are named.
_ANTIBODY = re.compile(r".+[_.-]Total(Seq)?[_-]?[ABCD]?(_\w+)?|(ADT|HTO)[_-].+|.+[_-](ADT|HTO)")
#: How guides are, where no gene is: ``sgSTAT1-1``, ``STAT1_g2``, ``IFNGR1g1``, ``non-targeting-3``.
_GUIDE = re.compile(
    r"sg(RNA)?[_.-]?[A-Z].*|.+[_.-](s?g|s?gRNA|guide)[_.-]?\d+|[A-Z][A-Z0-9]+s?g\d+"
    r"|(?i:non[_.-]?targeting).*"
)


def check_are_genes(var: pd.DataFrame) -> None:
    """Refuse antibodies, guides, peaks and the like among the genes.

    Only the columns `FEATURE_COLUMNS` of ``var`` are looked at. InputError says how many there are
    of which kind, and how to select the genes; a warning says if names look like those of
    antibodies or guides, and no column says what was measured.
    """
    columns = [column for column in FEATURE_COLUMNS if column in var]
    for column in columns:
        kinds = var[column].astype(str).value_counts(sort=False)
        others = {str(k): int(n) for k, n in kinds.items() if _NO_GENE.search(str(k)) and n}
        if not others:
            continue
        genes = [str(kind) for kind, n in kinds.items() if kind not in others and n]
        listed = ", ".join(f"{n} of {kind!r}" for kind, n in others.items())
        how = (
            f"select the genes: adata = adata[:, adata.var[{column!r}].isin({genes!r})].copy()"
            if genes
            else "there is no gene among them, so load the gene expression."
        )
        raise InputError(
            f"adata.var[{column!r}] says that {sum(others.values())} of {len(var)} features are no "
            f"genes ({listed}), but they would count into the totals of cells; {how}"
        )
    if columns:
        return
    for what, pattern in (("antibodies", _ANTIBODY), ("guides", _GUIDE)):
        names = [name for name in var.index.astype(str) if pattern.fullmatch(name)]
        if names:
            warnings.warn(
                f"{len(names)} of {len(var)} features are named like {what} ({examples(names)}), "
                f"but count as genes; if they are {what}, select the genes: "
                f"adata = adata[:, ~adata.var_names.isin({names[:200]!r})].copy()",
                UserWarning,
                stacklevel=4,
            )


def check_unique_genes(names: Sequence[str]) -> None:
    """Raise InputError if a gene name occurs twice."""
    index = pd.Index(names).astype(str)
    doubled = list(dict.fromkeys(index[index.duplicated()]))
    if doubled:
        raise InputError(
            f"{len(doubled)} gene names occur more than once in adata.var_names "
            f"({examples(doubled)}); call adata.var_names_make_unique() first."
        )


def match_genes(available: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Find where each wanted gene stands, int64.

    InputError if genes are missing or a wanted one stands there twice; says how many and which.
    """
    index = pd.Index(available).astype(str)
    # Doubled names that nobody asks for do no harm.
    check_unique_genes(index[index.isin(list(wanted))])
    first = pd.Series(np.arange(len(index)), index=index)
    positions = first[~index.duplicated()].reindex(list(wanted))
    missing = list(positions.index[positions.isna()])
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(positions)} genes needed are not in adata.var_names "
            f"({examples(missing)}); the data name theirs {examples(index[:3])}. "
            f"{_how_to_match(missing, list(wanted), list(index))}"
        )
    return positions.to_numpy(dtype=np.int64)


_KINDS = {
    "Ensembl ids": re.compile(r"ENS[A-Z]*[GTP]\d{6,}(\.\d+)?", re.IGNORECASE),
    "Entrez ids": re.compile(r"\d+"),
}


def without_version(name: str) -> str:
    """An Ensembl id without the number behind its point; any other name as it is."""
    return name.split(".")[0] if _KINDS["Ensembl ids"].fullmatch(name) else name


#: What names may differ in, and the code that writes two such names alike.
_SPELLINGS: dict[str, tuple[Callable[[str], str], str]] = {
    "version suffix": (without_version, "split('.')[0]"),
    "upper and lower case, as of mouse and human genes,": (str.upper, "upper()"),
    "blanks around them": (str.strip, "strip()"),
}


def kind_of(names: Sequence[str]) -> str:
    """What more than half of some names are."""
    for kind, pattern in _KINDS.items():
        if 2 * sum(pattern.fullmatch(str(name)) is not None for name in names) > len(names):
            return kind
    return "gene symbols"


def _spelt_otherwise(
    names: Sequence[str], available: Sequence[str], more_than: float
) -> tuple[int, str, str] | None:
    """How many names are there in another spelling, what they differ in, and code against it."""
    for what, (spelt, code) in _SPELLINGS.items():
        n_found = len({*map(spelt, names)} & {*map(spelt, available)})
        if n_found > more_than:
            return n_found, what, code
    return None


def _how_to_match(missing: Sequence[str], wanted: Sequence[str], available: Sequence[str]) -> str:
    """What to do about missing genes: rename, where a spelling of their own explains them."""
    found = _spelt_otherwise(missing, available, len(missing) / 2)
    if found is not None:
        n_found, what, code = found
        return (
            f"{n_found} of them differ in {what} only; write them as the model does: "
            f"spelt = {{gene.{code}: gene for gene in model.genes}}; adata.var_names = "
            f"[spelt.get(name.{code}, name) for name in adata.var_names]"
        )
    ours, theirs = kind_of(wanted), kind_of(available)
    if ours != theirs:
        return (
            f"The model names genes by {ours} and the data by {theirs}; put the same into "
            "adata.var_names."
        )
    if 2 * len(missing) > len(wanted):
        return "Rename the data's genes to match, or give data in which more of them were measured."
    return (
        "Rename the data's genes to match, or, if some were not measured, let "
        'model.predict(..., missing="impute") fill them in.'
    )


def explain_mismatch(listed: Iterable[str], genes: Sequence[str]) -> tuple[str, str]:
    """Why genes that somebody lists are not among those of the data, and what to do about it.

    Parts of a sentence: ``"genes like 'Stat1', the data like 'STAT1': ..."``, and the remedy or
    ``""``.
    """
    listed = list(dict.fromkeys(listed))
    shown = f"genes like {examples(listed[:3])}, the data like {examples(genes[:3])}"
    ours, theirs = kind_of(genes), kind_of(listed)
    if ours != theirs:
        return f"{shown}: this looks like {ours} against {theirs}", "use gene symbols on both sides"
    found = _spelt_otherwise(listed, genes, 2 * len(set(listed) & set(genes)))
    if found is None:
        return shown, ""
    n_found, what, code = found
    remedy = f"write adata.var_names = [gene.{code} for gene in adata.var_names]"
    if code == "upper()":
        remedy = "pass GeneSets(ignore_case=True)"
    return f"{shown}: {n_found} genes differ in {what} only", remedy
