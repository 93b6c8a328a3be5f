"""Real screens, halved: one half is the truth, the other stands in for a prediction."""

from __future__ import annotations

from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from celldit import datasets
from celldit.data import Cells, Fields, setup_anndata

STRONG = ("IFNGR1", "IFNGR2", "IRF1", "JAK2", "SMAD4", "STAT1")


@dataclass(frozen=True)
class Halves:
    """Replicate, truth and control cells of a screen, and all of it."""

    replicate: ad.AnnData
    truth: ad.AnnData
    control: ad.AnnData
    whole: ad.AnnData
    fields: Fields

    def log_replicate(self) -> ad.AnnData:
        """The replicate in log expression, without counts, dense and free to be changed."""
        log = Cells.from_anndata(self.replicate, self.fields).log_normalized().toarray()
        return ad.AnnData(log, obs=self.replicate.obs.copy(), var=self.replicate.var[[]].copy())


def halve(adata: ad.AnnData, fields: Fields, most_cells: int, seed: int = 0) -> Halves:
    """Draw two halves of each condition; all control cells stand on their own."""
    rng = np.random.default_rng(seed)
    keys = [fields.perturbation_key, *fields.covariate_keys]
    is_control = (adata.obs[fields.perturbation_key] == fields.control).to_numpy()
    perturbed = np.flatnonzero(~is_control)
    first, second = [], []
    for rows in adata.obs.iloc[perturbed].groupby(keys, observed=True).indices.values():
        drawn = perturbed[rng.permutation(rows)[:most_cells]]
        half = len(drawn) // 2
        first.append(drawn[:half])
        second.append(drawn[half : 2 * half])
    replicate = adata[np.concatenate(first)].copy()
    replicate.layers["counts"] = replicate.X.copy()
    replicate.obs["size_factor"] = replicate.obs["total_umis"]
    truth = adata[np.concatenate(second)].copy()
    return Halves(replicate, truth, adata[is_control].copy(), adata, fields)


@pytest.fixture(scope="session")
def papalexi() -> Halves:
    adata = datasets.papalexi()
    wanted = adata.obs["perturbation"].isin([*STRONG, "control"])
    adata = adata[wanted & (adata.obs["replicate"] != "rep_3")].copy()
    fields = setup_anndata(
        adata,
        perturbation_key="perturbation",
        covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )
    return halve(adata, fields, most_cells=300)


@pytest.fixture(scope="session")
def norman() -> Halves:
    adata = datasets.norman()
    fields = setup_anndata(adata, perturbation_key="perturbation", size_factor_key="total_umis")
    return halve(adata, fields, most_cells=100)


def mean_over_conditions(table: pd.DataFrame) -> pd.Series:
    """Each metric averaged over the conditions where it is defined, in the order of the table."""
    return table.groupby("metric", sort=False)["value"].mean()
