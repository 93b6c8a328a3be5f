"""No leak: held-out cells replaced by garbage change no byte of what is predicted for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import celldit as cd

KEEP = ("control", "STAT1", "JAK2", "IFNGR1", "SMAD4")
WAYS = {
    "perturbation": (("STAT1",), ["STAT1"]),
    "pair": ((("STAT1", "rep_3"), ("JAK2", "rep_2")), ["STAT1", "JAK2"]),
    "context": (("rep_3",), ["STAT1", "SMAD4"]),
}


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    """A part of the Papalexi screen: at most 20 cells of each perturbation and replicate."""
    adata = cd.datasets.papalexi()
    label, where = (adata.obs[k].astype(str).to_numpy() for k in ("perturbation", "replicate"))
    rows = [np.flatnonzero((label == p) & (where == w))[:20] for p in KEEP for w in set(where)]
    genes = (np.arange(adata.n_vars) % 2 == 0) | adata.var_names.isin(KEEP)
    small = adata[np.sort(np.concatenate(rows)), genes].copy()
    cd.CellDiT.setup_anndata(
        small,
        perturbation_key="perturbation",
        covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )
    return small


def garbage(adata: ad.AnnData, rows: np.ndarray) -> ad.AnnData:
    """The same with other counts and library sizes in some cells."""
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(adata.X).toarray()
    counts[rows] = rng.poisson(50, (rows.sum(), adata.n_vars))
    ruined = adata.copy()
    ruined.X = sparse.csr_matrix(counts.astype(adata.X.dtype))
    ruined.obs.loc[rows, "total_umis"] = 1e6 * rng.random(rows.sum()) + 1e6
    return ruined


@pytest.mark.parametrize("by", WAYS)
def test_garbage_in_what_is_held_out(
    by: str, screen: ad.AnnData, train_tiny: Callable[..., Any]
) -> None:
    test, asked = WAYS[by]
    cd.pp.split(screen, by, test=list(test))
    held_out = (screen.obs["split"] == "test").to_numpy()
    assert 0 < held_out.sum() < len(held_out) / 2
    where = screen.obs["replicate"].isin(screen.obs["replicate"][held_out])
    own = ((screen.obs["perturbation"] == "control") & where).to_numpy()
    predictions, effects = [], []
    for adata in (screen, garbage(screen, held_out)):
        train = adata[~held_out].copy()
        cd.data.check_no_leak(train, adata[held_out].copy())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            features = cd.pp.gene_features(
                train, ["reactome", "expression"], n_components=8, allow_missing=True
            )
            model = train_tiny(train, tokenizer="gene_sets", features=features)
        # What is fitted after the flow looks at cells, too; with fewer of them it would not be.
        assert model.trained.mean_calibration.weights
        assert model.trained.calibration.by_kind
        model = model.weighted(1)  # so that what the network does would show
        predictions.append(model.predict(adata[own].copy(), perturbations=asked, seed=3))
        effects.append(model.predict_effects(asked))
    one, two = predictions
    assert one.obs.equals(two.obs)
    assert one.X.toarray().tobytes() == two.X.toarray().tobytes()
    assert one.layers["counts"].toarray().tobytes() == two.layers["counts"].toarray().tobytes()
    assert one.obsm["X_celldit"].tobytes() == two.obsm["X_celldit"].tobytes()
    assert effects[0].equals(effects[1])


def test_garbage_in_training_shows(screen: ad.AnnData, train_tiny: Callable[..., Any]) -> None:
    """The comparison can fail: the same garbage in trained cells changes predictions."""
    rows = (screen.obs["perturbation"] == "JAK2").to_numpy()
    found = [
        train_tiny(adata, tokenizer="gene_sets").predict_effects("JAK2")
        for adata in (screen, garbage(screen, rows))
    ]
    assert not found[0].equals(found[1])
