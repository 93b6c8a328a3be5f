"""A wrong call, what its message tells to do, and that done."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy
from scipy import sparse

import celldit as cd
from celldit import CellDiT

SETUP: dict[str, Any] = {"perturbation_key": "perturbation", "covariate_keys": ["donor"]}
#: What is made once for all cases, by its name.
_MADE: dict[str, Any] = {}


@dataclass(frozen=True)
class Case:
    """One message.

    Parameters
    ----------
    wrong
        Raises or warns.
    told
        Regular expression for what the message tells to do.
    right
        Does it; is given what was found, and must neither raise nor warn.
    """

    wrong: Callable[[Scope], Any]
    told: str
    right: Callable[[Scope, re.Match[str]], Any]


class Scope:
    """What a case works with, all its own but the models."""

    def __init__(self, adata: ad.AnnData, model: CellDiT, folder: Path, train: Any) -> None:
        self.adata, self.model, self.folder, self.train_tiny = adata, model, folder, train

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in _MADE:
            _MADE[name] = make()
        return _MADE[name]

    def setup(self, adata: ad.AnnData | None = None, **options: Any) -> ad.AnnData:
        adata = self.adata if adata is None else adata
        CellDiT.setup_anndata(adata, **{**SETUP, **options})
        return adata

    @cached_property
    def few(self) -> ad.AnnData:
        return self.adata[:48].copy()

    @cached_property
    def predicted(self) -> ad.AnnData:
        make = lambda: self.model.predict(perturbations=["A", "B", "C", "A+B"])  # noqa: E731
        return self.once("predicted", make).copy()

    def again(self) -> None:
        """Take the prediction as it was before it was spoilt."""
        del self.predicted

    @cached_property
    def effects(self) -> pd.DataFrame:
        return self.once("effects", lambda: cd.tl.effects(self.adata, self.model, ["A"])).copy()

    @cached_property
    def compared(self) -> pd.DataFrame:
        both = {"mine": self.predicted, "other": self.predicted}
        make = lambda: cd.tl.compare(both, self.adata, n_repeats=2)  # noqa: E731
        return self.once("compared", make).copy()

    def other(self, name: str, change: Callable[[ad.AnnData], Any], **setup: Any) -> CellDiT:
        """A model of other cells, trained for no epoch."""

        def make() -> CellDiT:
            adata = self.adata.copy()
            change(adata)
            CellDiT.setup_anndata(adata, **{**SETUP, **setup})
            return self.train_tiny(adata, max_epochs=0)

        return self.once(name, make)

    @property
    def timed(self) -> CellDiT:
        return self.other("timed", with_times, time_key="t")

    @property
    def dosed(self) -> CellDiT:
        return self.other("dosed", with_doses, dose_key="d")

    def run(self, found: re.Match[str], **names: Any) -> dict[str, Any]:
        """Carry out the statement that was told; what the names are then."""
        scope = {"adata": self.adata, "sc": sc, "scipy": scipy, "cd": cd, "celldit": cd, **names}
        exec(found["code"], scope)
        return scope


def with_times(adata: ad.AnnData) -> None:
    adata.obs["t"] = np.arange(adata.n_obs) // 6 % 2 * 2.0 + 1


def with_doses(adata: ad.AnnData) -> None:
    numbers = 1.0 + np.arange(adata.n_obs) // 6 % 2
    adata.obs["d"] = np.where(adata.obs["perturbation"] == "control", 0.0, numbers)


def arguments(found: re.Match[str]) -> dict[str, Any]:
    """The arguments that were told, as ``name=value, name=value``."""
    return dict(eval(f"dict({found['arguments']})"))


def dense(adata: ad.AnnData) -> np.ndarray:
    return adata.X.toarray().astype(float)


def logged(adata: ad.AnnData) -> Any:
    return sparse.csr_matrix(np.log1p(dense(adata)))


ARGUMENTS = r"(?P<arguments>\w+=(?:'[^']*'|\[[^\]]*\]|\"[^\"]*\"|\w+))"
