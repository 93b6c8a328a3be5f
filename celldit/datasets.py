"""Small real data sets that come with the package.

Every matrix holds raw UMI counts in ``X`` (CSR, int32) and its origin in ``uns["source"]``. The
gene panels are subsets, so where ``obs["total_umis"]`` exists it is the library size of the whole
cell: use it as the size factor. Sources, licences and check sums stand in the ``README.md`` beside
the files.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import anndata as ad

from celldit.errors import FileError, UnknownNameError

__all__ = [
    "baron",
    "gene_set_file",
    "kang",
    "load",
    "norman",
    "papalexi",
    "reprogramming",
    "sciplex2",
]


def __dir__() -> list[str]:
    return list(__all__)


_CELLS = {
    "papalexi": "papalexi_eccite.h5ad",
    "kang": "kang_ifnb.h5ad",
    "norman": "norman_crispra.h5ad",
    "baron": "baron_islets.h5ad",
    "reprogramming": "reprogramming_timecourse.h5ad",
    "sciplex2": "sciplex2_dexamethasone.h5ad",
}
# fmt: off
_SHA256 = {
    "baron_islets.h5ad":
        "e4b115c9b2b7980db27d568ef62ce650ed639c558702e79dea77216733374d57",
    "kang_ifnb.h5ad":
        "6a6ccc9adc4efba1c6badae81a83297f2e00a9d7b8cb905ccd8c373ab8ec07fa",
    "norman_crispra.h5ad":
        "735c0753aa6544422b52f58ca1ce5668acbb7c83f8bd4a649e28f92774ab3e40",
    "papalexi_eccite.h5ad":
        "78303d080b058cdfbb6ee18eca3161572060e20457efe0d4187f439f6eb9c01c",
    "reprogramming_timecourse.h5ad":
        "b87772b943e4b2fae8a36e78ea07bdec1e084ad4910fef778148d40d32bc1b9d",
    "sciplex2_dexamethasone.h5ad":
        "439129e8f80316e0e50974ca2f167c69601df097fd8d0b5eef2097a5f86cb629",
    "hallmark_v7.gmt.gz":
        "bf13a20446ce315c7fc4d42b0e8698ebeb4a87fee675c7e7333f9fb3446095a1",
    "orthologs.tsv.gz":
        "e4ccf6cc552d873ed9d01e316e53891b688a53cd9207b47958278d5e3dbd2f2b",
    "go_bp.gmt.gz":
        "bcc0ee0b358c63390474de55e9e89347c39b890075cd91f737e30f0ad1d3e5f3",
    "reactome_v7.gmt.gz":
        "c5208fc4f657251e11b8366d1c6eb9df4cd23502a57a0767bf95359225e6535e",
}
# fmt: on
_GENE_SETS = {
    "hallmark": "hallmark_v7.gmt.gz",
    "reactome": "reactome_v7.gmt.gz",
    "go": "go_bp.gmt.gz",
}


def load(name: str) -> ad.AnnData:
    """Load a bundled data set by name.

    Parameters
    ----------
    name
        ``"papalexi"``, ``"kang"``, ``"norman"``, ``"baron"``, ``"reprogramming"`` or
        ``"sciplex2"``.

    Returns
    -------
    AnnData
        A fresh object in memory, the caller's to change.

    Raises
    ------
    UnknownNameError
        If there is no such data set.
    FileError
        If the installation lacks the file, or it is not the one that was published.

    Examples
    --------
    >>> cd.datasets.load("kang").shape
    (2800, 2000)
    """
    if name not in _CELLS:
        raise UnknownNameError.among("data set", name, _CELLS)
    return ad.read_h5ad(bundled_file(_CELLS[name]))


def papalexi() -> ad.AnnData:
    """CRISPR knock-out screen in THP-1 cells (Papalexi et al. 2021): 16,192 cells x 299 genes.

    25 target genes and ``control`` in three replicates. IFNGR1, IFNGR2, JAK2, STAT1, IRF1 and SMAD4
    have strong effects; most others next to none.

    Returns
    -------
    AnnData
        ``obs``: ``perturbation``, ``replicate``, ``grna``, ``total_umis``.
    """
    return load("papalexi")


def kang() -> ad.AnnData:
    """Interferon-beta stimulation of blood cells (Kang et al. 2018): 2,800 cells x 2,000 genes.

    13 cell types, each with and without stimulation.

    Returns
    -------
    AnnData
        ``obs``: ``condition`` (``control``, ``IFNB``), ``cell_type``, ``total_umis``.
    """
    return load("kang")


def norman() -> ad.AnnData:
    """CRISPR activation in K562 cells (Norman et al. 2019): 3,175 cells x 500 genes.

    18 single genes, 13 pairs written ``A+B``, and ``control``, about 100 cells each.

    Returns
    -------
    AnnData
        ``obs``: ``perturbation``, ``total_umis``.
    """
    return load("norman")


def baron() -> ad.AnnData:
    """Human pancreatic islets (Baron et al. 2016): 1,937 cells x 2,000 genes.

    14 cell types, from 872 beta cells down to 2 T cells; nothing was perturbed.

    Returns
    -------
    AnnData
        ``obs``: ``cell_type``, ``total_umis``.
    """
    return load("baron")


def reprogramming() -> ad.AnnData:
    """Reprogramming of mouse fibroblasts (Schiebinger et al. 2019): 1,000 cells x 1,479 genes.

    Days 10, 10.5 and 11. The library size of the whole cell is not known. The authors published
    log1p values; whole counts were recovered from them.

    Returns
    -------
    AnnData
        ``obs``: ``day`` (float), ``cell_type``.
    """
    return load("reprogramming")


def sciplex2() -> ad.AnnData:
    """Dexamethasone in seven doses, A549 cells (Srivatsan et al. 2020): 500 cells x 198 genes.

    The signal is weak; the data set is for the handling of doses.

    Returns
    -------
    AnnData
        ``obs``: ``perturbation`` (``control``, ``dexamethasone``), ``dose_um`` (micromolar, 0 for
        controls), ``replicate``, ``total_umis``. Genes are Ensembl ids with versions.
    """
    return load("sciplex2")


def gene_set_file(name: str) -> Path:
    """Path of a bundled gene-set file (gzipped GMT, human symbols).

    Parameters
    ----------
    name
        ``"hallmark"`` (50 sets) or ``"reactome"``, both of MSigDB 7, or ``"go"`` (GO biological
        process, 9,006 terms with the genes of what is below them).

    Returns
    -------
    pathlib.Path

    Raises
    ------
    UnknownNameError
        If there is no such file.
    FileError
        If the installation lacks the file, or it is not the one that was published.
    """
    if name not in _GENE_SETS:
        raise UnknownNameError.among("gene-set file", name, _GENE_SETS)
    return bundled_file(_GENE_SETS[name])


def bundled_file(file_name: str) -> Path:
    """Path of a file that comes with the package; FileError if it is not what was published."""
    package = Path(str(resources.files("celldit")))
    # A wheel carries the files inside the package; a checkout has them in data/ beside it.
    for folder in (package / "bundled", package.parent / "data"):
        if (folder / file_name).is_file():
            _check(folder / file_name)
            return folder / file_name
    raise FileError(f"The bundled file {file_name} is not installed; install celldit again.")


def _check(path: Path) -> None:
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256[path.name]:
        raise FileError(
            f"The bundled file {path} is not the one that was published (its SHA-256 differs); "
            "install celldit again."
        )
