"""Pairs against the sum of both, on simulated screens where it is known."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import norm

import celldit as cd
from celldit.analysis.adaptive_shrinkage import shrink
from celldit.errors import InputError

#: The effect of a pair from those of both, and of something of its own.
RULES = {
    "additive": lambda a, b, own: a + b,
    "synergy": lambda a, b, own: 1.7 * (a + b),
    "buffering": lambda a, b, own: 0.5 * (a + b),
    "epistasis": lambda a, b, own: a,
    "neomorphic": lambda a, b, own: own,
}


def screen(rule: str, n_cells: int = 300, n_genes: int = 150, seed: int = 0) -> ad.AnnData:
    """Overdispersed counts of controls, two single perturbations and their pair."""
    rng = np.random.default_rng(seed)
    base_G = np.log(rng.gamma(1.0, 3.0, n_genes) + 0.05)
    a, b, own = (0.7 * rng.normal(size=n_genes) * (rng.random(n_genes) < 0.2) for _ in range(3))
    effects = {"control": 0 * a, "A": a, "B": b, "A+B": RULES[rule](a, b, own)}
    label = np.repeat(list(effects), n_cells)
    log_NG = base_G + np.repeat(list(effects.values()), n_cells, axis=0)
    # Programmes that vary between cells make genes err together.
    log_NG = log_NG + rng.normal(size=(len(label), 3)) @ rng.normal(0, 0.2, (3, n_genes))
    counts = rng.poisson(np.exp(log_NG) * rng.gamma(5, 0.2, (len(label), 1)))
    obs = pd.DataFrame(
        {"perturbation": label, "umis": 1e4}, index=[f"cell{i}" for i in range(len(label))]
    )
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs)
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", size_factor_key="umis")
    return adata


@pytest.mark.parametrize("rule", RULES)
def test_kinds_are_found(rule: str) -> None:
    found = []
    for seed in range(6):
        adata = screen(rule, seed=seed)
        pair = cd.tl.interactions(adata).iloc[0]
        found.append(pair["kind"])
        assert pair["perturbation"] == "A+B"
        assert pair["dominant"] == ("A" if pair["kind"] == "epistasis" else "")
        assert (pair["n_genes"] > 2) == (rule != "additive")
    assert found.count(rule) >= 5


def test_additive_pairs_are_left_alone() -> None:
    """At most 5% are called anything, and a total of 1 is missed as often as its doubt says."""
    kinds, z, deviating = [], [], []
    for seed in range(30):
        adata = screen("additive", n_cells=(40, 150)[seed % 2], seed=100 + seed)
        pair = cd.tl.interactions(adata).iloc[0]
        kinds.append(pair["kind"])
        z.append((pair["total"] - 1) / pair["total_sd"])
        genes = adata.uns["interactions_genes"]
        deviating.append((genes["lfsr"] < 0.05).mean())
        assert genes["deviation"].to_numpy() == pytest.approx(
            (genes["measured"] - genes["additive"]).to_numpy()
        )
    assert sum(kind not in ("additive", "unclear") for kind in kinds) <= 3
    assert 0.6 < np.std(z) < 1.5
    assert np.mean(deviating) < 0.01


def test_a_single_that_does_nothing_is_not_masked() -> None:
    """B is a part of the controls, so A+B does what A does, and that is the sum."""
    kinds = []
    for seed in range(6):
        adata = screen("epistasis", n_cells=400, seed=seed)
        adata = adata[adata.obs["perturbation"] != "B"].copy()
        controls = np.flatnonzero(adata.obs["perturbation"] == "control")
        adata.obs.loc[adata.obs_names[controls[::2]], "perturbation"] = "B"
        kinds += cd.tl.interactions(adata)["kind"].tolist()
    assert kinds.count("additive") >= 5


def test_pairs_without_their_parts_are_refused() -> None:
    adata = screen("additive", n_cells=30)
    adata = adata[adata.obs["perturbation"] != "B"].copy()
    with pytest.raises(InputError, match="No pair such as 'A\\+B' has at least 20 cells"):
        cd.tl.interactions(adata)
    assert "interactions" not in adata.uns


def test_shrinkage_is_the_posterior_of_its_own_prior() -> None:
    """Values from a point at 0 and a normal: closed-form posteriors, and calibrated false signs."""
    rng = np.random.default_rng(0)
    n = 20_000
    responds = rng.random(n) < 0.3
    truth = np.where(responds, rng.normal(0, 2.0, n), 0.0)
    error = rng.uniform(0.5, 1.5, n)
    estimate = truth + error * rng.normal(size=n)
    found = shrink(estimate, error)
    wide = np.hypot(error, 2.0)
    own = 0.3 * norm.pdf(estimate, 0, wide)
    p = own / (own + 0.7 * norm.pdf(estimate, 0, error))
    exact = p * estimate * 4 / wide**2
    assert np.abs(found.mean_G - exact).mean() < 0.05
    for low, high in ((0.0, 0.05), (0.05, 0.3)):
        among = (found.lfsr_G >= low) & (found.lfsr_G < high)
        wrong = (np.sign(truth) != np.sign(estimate))[among]
        assert wrong.mean() == pytest.approx(found.lfsr_G[among].mean(), abs=0.06)


def test_nothing_is_shrunken_to_nothing() -> None:
    found = shrink(np.random.default_rng(1).normal(size=300), np.ones(300))
    assert np.abs(found.mean_G).max() < 0.3
    assert found.lfsr_G.min() > 0.3
