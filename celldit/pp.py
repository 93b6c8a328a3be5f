"""Preparation: splits, and what is known of perturbations from elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.data.labels import parts
from celldit.data.splits import split
from celldit.datasets import gene_set_file
from celldit.errors import CellditError, InputError, UnknownNameError, examples
from celldit.tokenizers.gmt import check_sets, read_gmt

__all__ = ["drug_features", "gene_features", "split"]

BUNDLED = ("reactome", "hallmark")
MIN_SET, MAX_SET = 3, 500
MAX_CONTROLS = 5000


def gene_features(
    adata: ad.AnnData,
    source: str | Path | pd.DataFrame | Mapping[str, Sequence[str]] = "reactome",
    *,
    n_components: int = 64,
    allow_missing: bool = False,
    key_added: str = "gene_features",
    seed: int = 0,
) -> pd.DataFrame:
    """Describe genes by what is known of them, so that unseen perturbations can be predicted.

    Parameters
    ----------
    adata
        Training cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    source
        ``"reactome"``, ``"hallmark"``
            Bundled gene sets.
        path to a GMT file, or a mapping from set names to genes
            Other gene sets, such as GO.
        ``"expression"``
            Co-expression in the control cells of `adata`; knows the measured genes only.
        DataFrame
            Any numbers, one row per gene (embeddings of a protein language model, dependencies).
    n_components
        Columns of the result; fewer when there is less to describe.
    allow_missing
        Return the table although it does not describe all perturbations of `adata`. A model cannot
        be trained with it until these perturbations, or the table's gaps, are dealt with.
    key_added
        Key in ``uns``.
    seed
        Of the randomised decomposition.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``, for ``CellDiT(adata, features=table)``. One row per gene
        that the source knows, whether measured or not.

    Raises
    ------
    InputError
        If the source does not describe a perturbation of `adata`, or cannot be used.
    UnknownNameError
        If the source is not known.
    FileError
        If the file cannot be read.

    Notes
    -----
    Of gene sets: the membership matrix (sets of 3 to 500 genes), each set weighted by log(number of
    genes / size of the set), so that narrow sets say more, and each gene's row scaled to unit
    length; then its leading singular vectors times singular values. This is latent semantic
    analysis (Deerwester et al. 1990, JASIS 41:391). Of expression: the same of standardised log
    expression, so that the inner product of two genes is about their correlation.
    """
    if isinstance(n_components, bool) or int(n_components) != n_components or n_components < 1:
        raise InputError(f"n_components={n_components!r} must be a whole number of at least 1.")
    if adata.isbacked:
        raise InputError("adata is backed by a file; bring it into memory with adata.to_memory().")
    fields = Fields.from_anndata(adata)
    if isinstance(source, pd.DataFrame):
        names, matrix = _given(source)
    elif isinstance(source, str) and source == "expression":
        names, matrix = _expression(Cells.from_anndata(adata, fields), seed)
    else:
        names, matrix = _membership(_gene_sets(source))
    table = _reduce(names, matrix, int(n_components), seed)
    _check_coverage(adata, fields, table, source, allow_missing)
    adata.uns[key_added] = table
    return table


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
        If a SMILES cannot be read; names the drug.
    """
    try:
        from rdkit import Chem, RDLogger
        from rdkit.Chem import Descriptors, rdFingerprintGenerator
    except ImportError as error:
        raise CellditError(
            'drug_features needs RDKit, which is missing; type: pip install "celldit[drugs]"'
        ) from error
    entries = {str(name): text for name, text in dict(smiles).items()}
    if not entries:
        raise InputError('smiles is empty; pass {"aspirin": "CC(=O)Oc1ccccc1C(=O)O", ...}.')
    if radius < 0 or n_bits < 1:
        raise InputError(f"radius={radius} and n_bits={n_bits} must be at least 0 and 1.")
    # RDKit's own complaints would stand beside the error that names the drug.
    RDLogger.DisableLog("rdApp.*")
    try:
        molecules = {
            name: Chem.MolFromSmiles(text) if isinstance(text, str) and text.strip() else None
            for name, text in entries.items()
        }
    finally:
        RDLogger.EnableLog("rdApp.*")
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


def _gene_sets(source: Any) -> dict[str, tuple[str, ...]]:
    if isinstance(source, Mapping):
        return check_sets(source)
    if isinstance(source, str) and source in BUNDLED:
        return read_gmt(gene_set_file(source))
    if isinstance(source, str) and source.lower() in ("go", "go_bp", "gobp"):
        raise InputError(
            "GO does not come with celldit; download its GMT file (c5.go.bp from MSigDB) and pass "
            'the path, source="c5.go.bp.symbols.gmt".'
        )
    is_path = isinstance(source, Path) or (
        isinstance(source, str) and (source.endswith((".gmt", ".gmt.gz")) or "/" in source)
    )
    if is_path:
        return read_gmt(source)
    known = [*BUNDLED, "expression", "a GMT file", "a DataFrame"]
    if isinstance(source, str):
        raise UnknownNameError.among("source of gene features", source, known)
    raise InputError(
        f"source must be one of {', '.join(known)}, or a mapping from set names to genes, not "
        f"{type(source).__name__}."
    )


def _membership(sets: Mapping[str, Sequence[str]]) -> tuple[list[str], sparse.csr_matrix]:
    """Weighted genes x sets matrix, rows of unit length."""
    kept = [genes for genes in sets.values() if MIN_SET <= len(genes) <= MAX_SET]
    names = sorted({gene for genes in kept for gene in genes})
    if not names:
        raise InputError(f"No gene set lists between {MIN_SET} and {MAX_SET} genes; give others.")
    row_of = {gene: i for i, gene in enumerate(names)}
    rows = np.array([row_of[gene] for genes in kept for gene in genes])
    sizes = np.array([len(genes) for genes in kept])
    columns = np.repeat(np.arange(len(kept)), sizes)
    # A set of all genes would say nothing; the one keeps a single set from weighing nothing.
    weights = np.repeat(np.log(1 + len(names) / sizes), sizes)
    matrix = sparse.csr_matrix((weights, (rows, columns)), shape=(len(names), len(kept)))
    lengths = np.sqrt(np.asarray(matrix.power(2).sum(axis=1)).ravel())
    return names, sparse.csr_matrix(sparse.diags(1 / lengths) @ matrix)


def _expression(cells: Cells, seed: int) -> tuple[list[str], np.ndarray]:
    """Standardised log expression of the controls, genes x cells."""
    controls = cells.take(cells.is_control)
    if controls.n_cells < 10:
        raise InputError(
            f"adata has {controls.n_cells} control cells, too few for co-expression; use another "
            'source, such as "reactome".'
        )
    if controls.n_cells > MAX_CONTROLS:
        rows = np.random.default_rng(seed).choice(controls.n_cells, MAX_CONTROLS, replace=False)
        controls = controls.take(np.sort(rows))
    log_NG = controls.log_normalized().toarray().astype(np.float64)
    log_NG -= log_NG.mean(axis=0)
    spread = log_NG.std(axis=0)
    # A gene that is never seen in controls has no co-expression; a row of zeros would claim one.
    seen = spread > 0
    names = [gene for gene, keep in zip(cells.genes, seen, strict=True) if keep]
    scaled = log_NG[:, seen] / spread[seen] / np.sqrt(controls.n_cells)
    return names, np.ascontiguousarray(scaled.T)


def _given(table: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    names = [str(name) for name in table.index]
    if len(set(names)) < len(names):
        raise InputError("The table of source= names a gene twice; drop the duplicates.")
    try:
        matrix = table.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("The table of source= holds values that are not numbers.") from error
    if matrix.size == 0 or not np.isfinite(matrix).all():
        raise InputError("The table of source= is empty or has missing values; fill or drop rows.")
    matrix = matrix - matrix.mean(axis=0)
    spread = matrix.std(axis=0)
    return names, matrix[:, spread > 0] / spread[spread > 0]


def _reduce(
    names: Sequence[str], matrix: np.ndarray | sparse.csr_matrix, n_components: int, seed: int
) -> pd.DataFrame:
    """Leading singular vectors times singular values, of a fixed sign."""
    n = min(n_components, *matrix.shape)
    if n < 1:
        raise InputError("The source tells no gene from another; give another source.")
    left, lengths, _ = randomized_svd(matrix, n, n_iter=7, random_state=seed)
    kept = lengths > 1e-9 * max(lengths.max(), 1e-300)
    scores = (left * lengths)[:, kept]
    columns = [f"component_{i + 1}" for i in range(scores.shape[1])]
    return pd.DataFrame(scores, index=pd.Index(list(names), dtype=object), columns=columns)


def _check_coverage(
    adata: ad.AnnData, fields: Fields, table: pd.DataFrame, source: Any, allow_missing: bool
) -> None:
    if fields.perturbation_key is None:
        return
    labels = adata.obs[fields.perturbation_key].astype(str).unique()
    sep, control = fields.perturbation_sep, fields.control
    wanted = sorted({part for label in labels for part in parts(label, sep, control)})
    missing = [name for name in wanted if name not in table.index]
    if not missing:
        return
    shown = source if isinstance(source, (str, Path)) else "the given source"
    text = (
        f"{shown} does not describe {len(missing)} of {len(wanted)} perturbations "
        f"({examples(missing, 6)}); use another source, or leave these perturbations out"
    )
    if not allow_missing:
        raise InputError(f"{text}, or pass allow_missing=True to get the table all the same.")
    warnings.warn(f"{text} before training with the table.", UserWarning, stacklevel=3)
