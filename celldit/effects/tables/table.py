"""A table of effects: what each perturbation of a screen does to each gene, and how sure that is.

The form in files is an AnnData (``.h5ad``) that any tool reads:

========================  =======================================================================
``X``                     mean log fold change (natural), perturbations x genes, float32; missing
                          values where a gene was not measured
``layers["se"]``          its standard error, of the same shape; may be missing
``obs["perturbation"]``   label, combinations joined with ``+``, or with ``sep`` where that is said
``obs["context"]``        where it was measured; may be empty
``obs["direction"]``      ``knock-out``, ``knock-down``, ``activation``, ``drug`` or empty
``obs["n_cells"]``        treated cells; ``n_control`` those of their controls
``var_names``             genes; further columns of names, as ``symbol``, are tried, too
``uns["effect_table"]``   ``format``, ``source``, ``licence``, ``species``, ``log``, ``sep``
========================  =======================================================================

A table of results in rows (perturbation, gene, log_fold_change, se, ...), as a DataFrame,
``.parquet`` or ``.csv``, is read as well (:mod:`celldit.effects.tables.reading`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd

FORMAT = 1
KEY = "effect_table"
#: What joins perturbations in tables, whatever does in the screens that they are made of.
SEP = "+"
DIRECTIONS = ("", "knock-out", "knock-down", "activation", "drug")
BLOCK = 256


@dataclass(frozen=True, eq=False)
class StoredRows:
    """A dense matrix in an ``.h5ad`` file, of which rows are read when they are asked for."""

    path: Path
    key: str
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> np.ndarray:
        with h5py.File(self.path, "r") as file:
            return np.asarray(file[self.key][rows], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class EffectTable:
    """Effects of P perturbations on G genes."""

    obs: pd.DataFrame  # P rows: perturbation, context, direction, n_cells
    genes: tuple[str, ...]
    effects: np.ndarray | StoredRows  # log fold changes, (P, G), in memory or on disk
    errors: np.ndarray | StoredRows | None = None  # their standard errors; None if not known
    source: str = ""
    licence: str = ""  # on what terms it may be used
    species: str = ""
    # Other names of the genes, by kind.
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # "natural" or "2", in which values are stored; empty where it does not say.
    log: str = "natural"
    sep: str = ""  # joins perturbations of a combination; empty where it does not say

    def __len__(self) -> int:
        return len(self.obs)

    def __repr__(self) -> str:
        n = self.obs["perturbation"].nunique()
        return f"EffectTable({n} perturbations, {len(self.genes)} genes, source={self.source!r})"

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Label of each row."""
        return tuple(self.obs["perturbation"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What predictions that use the table say of it."""
        return {
            "source": self.source,
            "licence": self.licence,
            "species": self.species,
            "contexts": sorted(set(self.obs["context"]) - {""}),
        }

    def identity(self) -> str:
        """Text that is another one for another table."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update("\0".join((*self.perturbations, *self.genes)).encode())
        for start in sorted({0, len(self) - 1}):
            digest.update(np.ascontiguousarray(self.effects[slice(start, start + 1)]).tobytes())
        return digest.hexdigest()

    def blocks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
        """Some rows at a time: which, their effects and standard errors, float32."""
        for start in range(0, len(self), BLOCK):
            rows = slice(start, min(start + BLOCK, len(self)))
            errors = None if self.errors is None else np.asarray(self.errors[rows], np.float32)
            yield rows, np.asarray(self.effects[rows], np.float32), errors

    def to_anndata(self) -> ad.AnnData:
        """The form of a file, for ``write_h5ad``."""
        var = pd.DataFrame(
            {kind: list(names) for kind, names in self.aliases.items()},
            index=pd.Index(list(self.genes), dtype=object),
        )
        obs = self.obs.set_index(pd.Index([str(i) for i in range(len(self))], dtype=object))
        made = ad.AnnData(np.asarray(self.effects[:], np.float32), obs, var)
        if self.errors is not None:
            made.layers["se"] = np.asarray(self.errors[:], np.float32)
        said = {
            name: getattr(self, name) for name in ("source", "licence", "species", "log", "sep")
        }
        made.uns[KEY] = {"format": FORMAT, **said}
        return made
