"""Preparation: splits, and what is known of perturbations from elsewhere."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, overload

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import (
    check_key,
    check_kind,
    check_known,
    check_path,
    check_seed,
    check_whole,
    text_list,
)
from celldit.data.cells import Cells
from celldit.data.checks import check_anndata
from celldit.data.fields import Fields
from celldit.data.labels.columns import text_column
from celldit.data.labels.guides import CONTROL_GUIDES, GuideNames, merge_guide_labels
from celldit.data.labels.labels import parts
from celldit.data.reading import Source as CellSource
from celldit.data.reading import read_set_up
from celldit.data.splits import split
from celldit.data.symbols import human_symbols
from celldit.datasets import gene_set_file
from celldit.effects.features.features import storable
from celldit.effects.features.gene_sources import Source, describe, name_of
from celldit.effects.tables.table import DIRECTIONS
from celldit.errors import CellditError, InputError, examples
from celldit.io.files import refuse_existing
from celldit.io.replacing import made_whole
from celldit.tokenizers.gmt import read_gmt

__all__ = [
    "control_effects",
    "drug_features",
    "effect_table",
    "gene_features",
    "merge_guides",
    "split",
]


def __dir__() -> list[str]:
    return list(__all__)


@overload
def gene_features(
    adata: ad.AnnData,
    source: Source = ...,
    *,
    n_components: int | None = ...,
    ignore_case: bool = ...,
    allow_missing: bool = ...,
    key_added: str = ...,
    seed: int = ...,
) -> pd.DataFrame: ...


@overload
def gene_features(
    adata: ad.AnnData,
    source: list[Source] | list[str],
    *,
    n_components: int | None = ...,
    ignore_case: bool = ...,
    allow_missing: bool = ...,
    key_added: str = ...,
    seed: int = ...,
) -> dict[str, pd.DataFrame]: ...


def gene_features(
    adata: ad.AnnData,
    source: Source | list[Source] | list[str] = "reactome",
    *,
    n_components: int | None = None,
    ignore_case: bool = False,
    allow_missing: bool = False,
    key_added: str = "gene_features",
    seed: int = 0,
) -> pd.DataFrame | dict[str, pd.DataFrame]:
    """Describe genes by what is known of them, so that unseen perturbations can be predicted.

    Parameters
    ----------
    adata
        Training cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    source
        ``"reactome"``, ``"go"``, ``"hallmark"``
            Bundled gene sets. GO biological process describes the most genes.
        path to a GMT file, or a mapping from set names to genes
            Other gene sets.
        ``"expression"``
            Co-expression in the control cells of `adata`; knows the measured genes only.
        DataFrame
            Any numbers, one row per gene (embeddings of a protein language model, dependencies).
        list of these
            Several sources. A model that is given all of them learns from its training
            perturbations how much each tells; a gene needs to be in one of them only.
    n_components
        Columns of the result; fewer when there is less to describe. By default gene sets are not
        decomposed, but kept whole with a sparse column for each set, and other sources get 64.
    ignore_case
        Whether ``Stat1`` is ``STAT1`` and ``Trp53`` is ``TP53``, as when human sets are used for
        mouse data, and Ensembl ids are the genes of sets of symbols. Genes then have the names of
        `adata`'s genes and perturbations, and all others those of mouse.
    allow_missing
        Warn, instead of raising, where perturbations of `adata` are in no source. A model can be
        trained all the same, since what it has seen it need not look up; but such a perturbation
        cannot be predicted where it was never seen.
    key_added
        Key in ``uns``.
    seed
        Of the randomised decomposition.

    Returns
    -------
    pandas.DataFrame, or a dictionary of them by name of the source where there are several
        For ``CellDiT(adata, features=table)``. One row per gene that the source knows, whether
        measured or not; what it does not know has no row. Also written to ``uns[key_added]``, where
        gene sets kept whole are a dictionary of ``genes``, ``sets`` and ``weights``, since AnnData
        cannot write sparse tables; ``features=`` takes that, too.

    Raises
    ------
    InputError
        If no source describes a perturbation of `adata` (names it), or one cannot be used.
    UnknownNameError
        If the source is not known.
    FileError
        If the file cannot be read.

    Notes
    -----
    Of gene sets: the membership matrix (sets of 3 to 500 genes), each set weighted by 1 / √size, so
    that narrow sets say more, and each gene's row by the inverse square root of its length. A model
    takes each set to have an effect of its own that its members share. They are kept whole, since
    what tells related genes apart is lost in the leading components: measured in
    ``docs/results/features.csv``. With `n_components`, the leading singular vectors times singular
    values (latent semantic analysis; Deerwester et al. 1990, JASIS 41:391).

    Of expression: the same of standardised log expression, so that the inner product of two genes
    is about their correlation.

    Examples
    --------
    >>> table = cd.pp.gene_features(adata, source="hallmark", n_components=8, allow_missing=True)
    >>> table.shape[1]
    8
    """
    check_anndata(adata, "adata")
    check_key(key_added)
    if n_components is not None:
        check_whole(n_components, "n_components")
    check_seed(seed)
    if adata.isbacked:
        raise InputError("adata is backed by a file; bring it into memory with adata.to_memory().")
    fields = Fields.from_anndata(adata)
    cells = Cells.from_anndata(adata, fields)
    sources: list[Source] = [*source] if isinstance(source, list) else [source]
    if not sources:
        raise InputError('source=[] names no source; pass source=["reactome", "expression"].')
    # A perturbation is spelled as it will be asked for, also where the panel spells it otherwise.
    spelling = [*cells.genes, *_wanted(cells, fields)] if ignore_case else None
    tables: dict[str, pd.DataFrame] = {}
    for one in sources:
        tables[name_of(one, list(tables))] = describe(one, cells, n_components, seed, spelling)
    _check_coverage(cells, fields, tables, allow_missing)
    stored = {name: storable(table) for name, table in tables.items()}
    several = isinstance(source, list)
    adata.uns[key_added] = stored if several else next(iter(stored.values()))
    return tables if several else next(iter(tables.values()))


def merge_guides(
    adata: ad.AnnData,
    guide_key: str,
    *,
    pattern: str | None = None,
    control: str = "control",
    control_guides: Sequence[str] = CONTROL_GUIDES,
    sep: str | None = None,
    key_added: str = "target",
) -> pd.DataFrame:
    """Write the target of each cell's guides, so that guides of one target count as one.

    ``"STAT1g2"``, ``"STAT1_sg1"``, ``"sgSTAT1-1"`` and ``"STAT1_+_191878500.23-P1P2"`` become
    ``"STAT1"``, ``"IFNGR1g1+NT"`` becomes ``"IFNGR1"``, ``"NTg5"`` and ``"safe_targeting_4"`` the
    control. What is no guide's name stays; look at what is returned.

    Parameters
    ----------
    adata
        Cells; only ``obs[key_added]`` is written.
    guide_key
        Column of ``obs`` with the guide of each cell, or several joined by `sep`.
    pattern
        Regular expression that a whole guide's name matches, with a group ``target``. None for the
        styles of the common libraries: ``g2``, ``sg2``, ``_sg2``, ``_guide2``, ``_2``, ``-2``,
        ``_P1P2``, a protospacer behind the target, ``sg`` before it. Names of genes that end in a
        number (``NKX2-1``) are known from ``var_names`` and the bundled gene sets.
    control
        What cells are called in which nothing is targeted.
    control_guides
        Names of guides that target nothing; case, blanks, dashes and numbers do not matter.
    sep
        What stands between two guides of one cell; None for what is found to join guides. Targets
        are joined by ``"+"``, which ``setup_anndata`` takes.
    key_added
        Column to write, for ``setup_anndata(perturbation_key=...)``.

    Returns
    -------
    pandas.DataFrame
        What became what, a row for each distinct label: ``guide``, ``target``, ``n_cells``,
        ``changed``.

    Raises
    ------
    UnknownNameError
        If the column does not exist; names the closest.
    InputError
        If `pattern` has no group ``target``, a label is empty, guides are joined by another
        separator, or `key_added` is `guide_key`.

    Warns
    -----
    UserWarning
        If names stay as they are that are no genes', or are cut to what is no gene's; names some.

    Examples
    --------
    >>> import celldit as cd
    >>> cd.pp.merge_guides(adata, "guide")                              # doctest: +SKIP
    >>> cd.CellDiT.setup_anndata(adata, perturbation_key="target")      # doctest: +SKIP
    """
    check_anndata(adata, "adata")
    check_key(key_added)
    labels = text_column(adata, guide_key, "guide_key")
    if key_added == guide_key:
        raise InputError(
            f"key_added={key_added!r} would overwrite the guides; give another name, such as "
            '"target".'
        )
    genes = _is_gene(adata.var_names)
    names = GuideNames(pattern, tuple(text_list(control_guides, "control_guides")), genes)
    table = merge_guide_labels(labels, names, control=control, sep=sep)
    left = [name for name in table["guide"][~table["changed"]] if not genes(name)]
    if left:
        warnings.warn(
            f"{len(left)} labels of adata.obs[{guide_key!r}] were not recognised as guides and "
            f"stay as they are ({examples(left)}); if they are guides, pass pattern= that finds "
            "their target, and control_guides= with those that target nothing.",
            UserWarning,
            stacklevel=2,
        )
    cut = [
        f"{row.guide!r} to {row.target!r}"
        for row in table[table["changed"]].itertuples()
        if any(
            re.search(r"[_\s]", t) and t != control and not genes(t) for t in row.target.split("+")
        )
    ]
    if cut:
        warnings.warn(
            f"{len(cut)} labels of adata.obs[{guide_key!r}] are cut to what no gene is called "
            f"({'; '.join(cut[:3])}); if more of them belongs to the guide, pass pattern= that "
            "finds their target, and control_guides= with those that target nothing.",
            UserWarning,
            stacklevel=2,
        )
    target_of = dict(zip(table["guide"], table["target"], strict=True))
    adata.obs[key_added] = pd.Categorical([target_of[label] for label in labels])
    return table


def effect_table(
    adata: CellSource,
    *,
    source: str = "",
    licence: str = "",
    species: str = "",
    direction: Literal["", "knock-out", "knock-down", "activation", "drug"] = "",
    min_cells: int = 20,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> ad.AnnData:
    """Measure what each perturbation of a screen does to each gene, as a table for others.

    The table is small, holds no cells, and is what ``CellDiT(other_adata, effects=table)`` takes to
    predict perturbations that the other data do not have. Counts are read in blocks, so that a
    screen on disk may be of any size.

    Parameters
    ----------
    adata
        A screen, set up with :meth:`celldit.CellDiT.setup_anndata`, in memory, backed, as a path or
        as what :func:`celldit.open_store` gives.
    source, licence, species
        Where the data are from, on what terms they may be used, and of which organism they are;
        every prediction that uses the table repeats it in ``uns["celldit"]["effects"]``.
    direction
        What the perturbations do to their targets.
    min_cells
        Conditions of fewer cells are left out, as are those of contexts with fewer controls.
    out
        Path ending in ``.h5ad`` to write the table to.
    overwrite
        Whether `out` may replace a file.

    Returns
    -------
    AnnData
        Perturbations (in each context) x genes. ``X`` is the log fold change (natural logarithm of
        mean counts per 10,000 with 0.05 added), and
        ``layers["se"]`` its standard error; ``obs`` has perturbation, context, direction, n_cells;
        ``uns["effect_table"]`` what was said of it. See ``docs/effects_elsewhere.md``.

    Raises
    ------
    InputError
        If no perturbation has enough cells and controls, or a word is not known.
    FileError
        If `out` exists (unless `overwrite`) or cannot be written.

    Examples
    --------
    >>> table = cd.pp.effect_table(adata, source="our first screen", licence="CC BY 4.0")
    >>> table.shape[1] == adata.n_vars
    True
    """
    from celldit.calibration.rates.table import measure_effect_table

    check_whole(min_cells, "min_cells")
    check_known([direction], DIRECTIONS, "direction")
    target = None if out is None else Path(check_path(out))
    if target is not None:
        refuse_existing([target], overwrite=overwrite, how="overwrite=True")
    cells, fields = read_set_up(adata)
    said = {"source": source, "licence": licence, "species": species}
    table = measure_effect_table(
        cells,
        fields.perturbation_sep,
        min_cells=min_cells,
        direction=direction,
        **{name: str(value) for name, value in said.items()},
    ).to_anndata()
    if target is not None:
        with made_whole(target) as temporary:
            table.write_h5ad(temporary)
    return table


def control_effects(
    adata: CellSource,
    *,
    direction: str | Mapping[str, str] = "knock-out",
    source: str = "covariance of controls",
    seed: int = 0,
) -> ad.AnnData:
    """Guess what perturbing each gene does from how unperturbed cells vary.

    Needs no knowledge but the control cells: a knock-out of a gene is taken to move other genes as
    they differ where that gene happens to be low. For ``CellDiT(adata, effects=table)``, which
    uses it only where it predicts perturbations that were left out.

    Parameters
    ----------
    adata
        Cells, set up with :meth:`celldit.CellDiT.setup_anndata`, of which at most 5,000 controls
        are used.
    direction
        ``"knock-out"``, ``"knock-down"`` or ``"activation"``, of all or by perturbation, as in
        ``{"KLF1": "activation"}``.
    source
        Name of the table.
    seed
        Of the choice of cells.

    Returns
    -------
    AnnData
        Genes that controls express x genes, as :func:`effect_table` gives it.

    Raises
    ------
    InputError
        If there are fewer than 50 controls.
    UnknownNameError
        If a direction is not known.

    Examples
    --------
    >>> table = cd.pp.control_effects(adata)
    >>> bool((table.obs["direction"] == "knock-out").all())
    True
    """
    from celldit.effects.tables.controls import control_table

    check_seed(seed)
    check_kind(direction, (str, Mapping), "direction", "a word, or words by perturbation")
    cells, _ = read_set_up(adata)
    return control_table(cells, direction, str(source), seed).to_anndata()


def _is_gene(own: Iterable[str]) -> Callable[[str], bool]:
    """Tells names of genes, whatever their case: those of the data, then those of bundled sets."""
    at_hand = {str(name).casefold() for name in own}
    return lambda name: name.casefold() in at_hand or name.casefold() in _bundled_genes()


@cache
def _bundled_genes() -> frozenset[str]:
    sets = [read_gmt(gene_set_file(name)) for name in ("go", "reactome", "hallmark")]
    return frozenset(gene.casefold() for one in sets for genes in one.values() for gene in genes)


def drug_features(
    smiles: Mapping[str, str] | pd.Series, *, radius: int = 2, n_bits: int = 1024
) -> pd.DataFrame:
    """Describe drugs by their structure.

    Parameters
    ----------
    smiles
        SMILES of each drug, by the name that the perturbation column uses.
    radius, n_bits
        Of the Morgan fingerprint (Rogers & Hahn 2010, J. Chem. Inf. Model. 50:742).

    Returns
    -------
    pandas.DataFrame
        One row per drug, for ``CellDiT(adata, features=table)``: log(1 + count) of each bit of the
        fingerprint, and ten descriptors (weight, logP, polar surface, ...) standardised over the
        drugs; both blocks have the same total variance.

    Raises
    ------
    CellditError
        If RDKit is not installed.
    InputError
        If a SMILES cannot be read; names the drug. Or if an argument is of the wrong kind.

    Examples
    --------
    >>> table = cd.pp.drug_features({"aspirin": "CC(=O)Oc1ccccc1C(=O)O"})  # doctest: +SKIP
    """
    example = '{"aspirin": "CC(=O)Oc1ccccc1C(=O)O", ...}'
    check_kind(smiles, (Mapping, pd.Series), "smiles", f"a SMILES for each drug, {example}")
    check_whole(radius, "radius", 0)
    check_whole(n_bits, "n_bits")
    if not len(smiles):
        raise InputError(f"smiles is empty; pass {example}.")
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import Descriptors, rdFingerprintGenerator
    except ImportError as error:
        raise CellditError(
            'drug_features needs RDKit, which is missing; type: pip install "celldit[drugs]"'
        ) from error
    entries = {str(name): text for name, text in dict(smiles).items()}
    # RDKit's own complaints would stand beside the error that names the drug.
    with rdBase.BlockLogs():
        molecules = {
            name: Chem.MolFromSmiles(text) if isinstance(text, str) and text.strip() else None
            for name, text in entries.items()
        }
    broken = [name for name, molecule in molecules.items() if molecule is None]
    if broken:
        raise InputError(
            f"{len(broken)} SMILES cannot be read ({examples(broken)}); correct or drop them."
        )
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=n_bits)
    bits = np.array(
        [generator.GetCountFingerprintAsNumPy(m) for m in molecules.values()], dtype=np.float64
    )
    bits = np.log1p(bits)
    used = bits.any(axis=0)
    functions = {name: getattr(Descriptors, name) for name in DESCRIPTORS}
    values = np.array([[f(m) for f in functions.values()] for m in molecules.values()], np.float64)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    total_bits, total_values = bits.var(axis=0).sum(), values.var(axis=0).sum()
    if total_bits > 0 and total_values > 0:
        values *= (total_bits / total_values) ** 0.5
    columns = [*(f"bit_{i}" for i in np.flatnonzero(used)), *functions]
    return pd.DataFrame(np.hstack([bits[:, used], values]), index=list(molecules), columns=columns)


DESCRIPTORS = (
    "MolWt",
    "MolLogP",
    "TPSA",
    "NumHDonors",
    "NumHAcceptors",
    "NumRotatableBonds",
    "RingCount",
    "NumAromaticRings",
    "FractionCSP3",
    "NumHeteroatoms",
)


def _wanted(cells: Cells, fields: Fields) -> list[str]:
    sep, control = fields.perturbation_sep, fields.control
    labels = set(cells.perturbations)
    return sorted({part for label in labels for part in parts(str(label), sep, control)})


def _check_coverage(
    cells: Cells, fields: Fields, tables: Mapping[str, pd.DataFrame], allow_missing: bool
) -> None:
    wanted = _wanted(cells, fields)
    known = {name for table in tables.values() for name in table.index}
    missing = [name for name in wanted if name not in known]
    if not missing:
        return
    text = (
        f"{len(missing)} of {len(wanted)} perturbations are not described by "
        f"{' or '.join(tables)} ({examples(missing, 6)})"
    )
    known_symbols = set(human_symbols([*known]))
    if 2 * sum(name in known_symbols for name in human_symbols(missing)) > len(missing):
        text += (
            ", but most of them are there by another name: is this a mouse, or are these Ensembl "
            "ids? Pass ignore_case=True"
        )
    if not allow_missing:
        raise InputError(
            f"{text}; add another source, such as source=['reactome', 'go', 'expression'], or pass "
            "allow_missing=True: only perturbations never seen in training need features."
        )
    warnings.warn(
        f"{text}; they can be predicted only where they are in training.", UserWarning, stacklevel=3
    )
