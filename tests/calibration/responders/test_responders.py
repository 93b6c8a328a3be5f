"""Who responded, on simulated screens where it is known."""

from __future__ import annotations

from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import norm

import celldit as cd
from celldit.calibration.responders.mixture import fit_responses

SHARES = {"g0": 0.9, "g1": 0.3}


def screen(size: float, n_cells: int = 300, seed: int = 0) -> tuple[ad.AnnData, np.ndarray]:
    """Counts in two batches that differ; of each guide's cells a share responds; which did."""
    rng = np.random.default_rng(seed)
    n_genes = 80
    guide = np.repeat([*SHARES, "NT"], [n_cells, n_cells, 500])
    n = len(guide)
    batch = rng.integers(0, 2, n)
    log_NG = np.log(rng.gamma(1.0, 2.0, n_genes)) + rng.normal(size=(n, 2)) @ rng.normal(
        0, 0.2, (2, n_genes)
    )
    log_NG[batch == 1] += rng.normal(0, 0.4, n_genes)
    responds = rng.random(n) < pd.Series(guide).map(SHARES).fillna(0.0).to_numpy()
    log_NG[responds] += size * rng.normal(size=n_genes) * (rng.random(n_genes) < 0.25)
    counts = rng.poisson(np.exp(log_NG) * rng.gamma(8, 1 / 8, (n, 1)))
    counts[:, 0] += 1  # no empty cell
    obs = pd.DataFrame(
        {
            "perturbation": np.where(guide == "NT", "control", "A"),
            "batch": [f"b{b}" for b in batch],
            "guide": guide,
        },
        index=[f"cell{i}" for i in range(n)],
    )
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs)
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["batch"])
    return adata, responds


def test_cells_without_a_guide_are_a_group_of_their_own() -> None:
    adata, _ = screen(1.0, n_cells=60)
    guide = adata.obs["guide"].astype("category")
    adata.obs["guide"] = guide.where(np.arange(len(guide)) % 3 > 0)
    table = cd.tl.responders(adata, guide_key="guide")
    assert list(table["guide"]) == ["g0", "g1", "unknown"]


def test_guides_that_are_numbered_in_each_perturbation_are_told_apart() -> None:
    adata, _ = screen(1.0, n_cells=60)
    adata.obs["perturbation"] = np.where(
        adata.obs["guide"] == "g1", "B", adata.obs["perturbation"].astype(str)
    )
    adata.obs["guide"] = "g1"
    cd.tl.responders(adata, guide_key="guide")
    axes = cd.pl.responders(adata, show=False)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A g1", "B g1"]
    plt.close("all")


def test_of_cells_given_p_a_share_p_responded() -> None:
    p, responded, inside = [], [], []
    for size in (0.3, 0.6, 1.0):
        for seed in range(4):
            adata, truth = screen(size, seed=seed)
            table = cd.tl.responders(adata, guide_key="guide").set_index("guide")
            perturbed = (adata.obs["perturbation"] == "A").to_numpy()
            p.append(adata.obs["p_responded"].to_numpy()[perturbed])
            responded.append(truth[perturbed])
            of_guide = pd.Series(truth).groupby(adata.obs["guide"].to_numpy()).mean()
            inside += [row.low <= of_guide[row.Index] <= row.high for row in table.itertuples()]
    p_N, responded_N = np.concatenate(p), np.concatenate(responded)
    assert abs(p_N.mean() - responded_N.mean()) < 0.03
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        among = (p_N >= low) & (p_N <= high)
        assert abs(p_N[among].mean() - responded_N[among].mean()) < 0.08
    assert np.mean(inside) > 0.75


def test_nobody_responds_to_nothing() -> None:
    shares, low = [], []
    for seed in range(20):
        adata, _ = screen(0.0, n_cells=(20, 200)[seed % 2], seed=seed)
        table = cd.tl.responders(adata)
        shares += table["share"].tolist()
        low += table["low"].tolist()
    assert np.mean(shares) < 0.06
    assert np.mean(np.array(low) > 0) <= 0.1


def test_nobody_responds_where_no_gene_differs() -> None:
    """A panel of one gene has all of every library."""
    adata, _ = screen(1.0, n_cells=40)
    alone = adata[:, :1].copy()
    cd.CellDiT.setup_anndata(alone, perturbation_key="perturbation", covariate_keys=["batch"])
    table = cd.tl.responders(alone)
    assert (table["low"] == 0).all()
    assert np.isfinite(table["share"]).all()


def test_two_normals_have_their_closed_form() -> None:
    """With many cells the grid finds share and size, and p is Bayes' rule with the true ones."""
    rng = np.random.default_rng(0)
    controls = rng.normal(size=4000)
    responds = rng.random(4000) < 0.4
    score = rng.normal(size=4000) + 4.0 * responds * (1 + 0.1 * rng.normal(size=4000))
    standard = (controls - controls.mean()) / controls.std()
    found = fit_responses(score, np.zeros(4000, dtype=int), standard, 0.016)
    assert found.share_K == pytest.approx(responds.mean(), abs=0.02)
    assert found.size == pytest.approx(4.0, abs=0.4)
    moved = 0.4 * norm.pdf(score, 4.0, np.hypot(1, 0.4))
    exact = moved / (moved + 0.6 * norm.pdf(score))
    assert np.abs(found.p_N - exact).mean() < 0.02
    order = np.argsort(score)
    assert (np.diff(found.p_N[order]) > -1e-9).all()


def test_a_guide_without_effect_stays_without() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1], 200)
    found = fit_responses(rng.normal(size=400) + 5.0 * (group == 0), group,
                          rng.normal(size=500), 0.05)  # fmt: skip
    assert found.share_K[0] > 0.97
    assert found.high_K[1] < 0.05


def test_cells_without_controls_or_companions_are_left_out() -> None:
    adata, _ = screen(1.0, n_cells=60)
    adata.obs["batch"] = np.where(adata.obs["perturbation"] == "A", adata.obs["batch"], "b0")
    adata.obs.loc[adata.obs_names[:4], "perturbation"] = "rare"
    with pytest.warns(UserWarning, match="'rare' have fewer than 10 cells"):
        table = cd.tl.responders(adata)
    assert table["perturbation"].tolist() == ["A"]
    known = adata.obs["p_responded"].notna()
    expected = (adata.obs["perturbation"] == "A") & (adata.obs["batch"] == "b0")
    assert (known == expected).all()


def test_cells_in_any_order_get_the_same_scale(tiny_screen: ad.AnnData) -> None:
    cd.tl.responders(tiny_screen, seed=1)
    before = tiny_screen.obs["response_score"].copy()
    other = tiny_screen[::-1].copy()
    cd.tl.responders(other, seed=1)
    # Folds are dealt otherwise, which moves scores little.
    both = pd.concat([before, other.obs["response_score"]], axis=1).dropna()
    assert both.corr().iloc[0, 1] > 0.9


def test_stat1_is_silent_in_those_that_responded_only() -> None:
    """Papalexi: of cells with STAT1 knocked out, those without any STAT1 count responded."""
    adata = cd.datasets.papalexi()
    kept: Any = adata.obs["perturbation"].isin(["control", "STAT1"])
    adata = adata[kept].copy()
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )  # fmt: skip
    cd.tl.responders(adata, "STAT1", guide_key="grna")
    silent = np.asarray(adata[:, "STAT1"].X.todense()).ravel() == 0
    p = adata.obs["p_responded"].to_numpy()
    assert silent[p > 0.9].mean() > 0.5
    assert silent[p < 0.1].mean() < 0.05
