"""Dose-response curves where EC50 and effect are known."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.analysis.dose_curves import fit_curves
from celldit.errors import InputError, UnknownNameError

DOSES = np.array([0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0])


def hill(dose: np.ndarray, largest: np.ndarray, ec50: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Changes at D doses of G genes, (D, G)."""
    return largest / (1 + (ec50 / dose[:, None]) ** slope)


def screen(seed: int = 0, n_cells: int = 60, ec50: float = 3.0) -> tuple[ad.AnnData, np.ndarray]:
    """Counts at seven doses of one drug; the first 20 of 60 genes respond; how much."""
    rng = np.random.default_rng(seed)
    n_genes = 60
    largest = np.where(np.arange(n_genes) < 20, rng.choice([-1.5, 1.5], n_genes), 0.0)
    change_DG = hill(DOSES, largest, np.full(n_genes, ec50), np.full(n_genes, 1.5))
    dose = np.repeat([0.0, *DOSES], n_cells)
    log_NG = np.log(rng.gamma(2.0, 3.0, n_genes)) + np.repeat(
        np.vstack([np.zeros(n_genes), change_DG]), n_cells, axis=0
    )
    counts = rng.poisson(np.exp(log_NG) * rng.gamma(8, 1 / 8, (len(dose), 1)))
    obs = pd.DataFrame(
        {"drug": np.where(dose > 0, "X", "control"), "um": dose, "umis": 1e4},
        index=[f"cell{i}" for i in range(len(dose))],
    )
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs)
    adata.var_names = [f"gene{g}" for g in range(n_genes)]
    setup(adata)
    return adata, largest


def setup(adata: ad.AnnData) -> None:
    cd.CellDiT.setup_anndata(adata, perturbation_key="drug", dose_key="um", size_factor_key="umis")


def test_intervals_hold_what_they_say() -> None:
    """EC50, size and curve are drawn from the model's own assumptions, noise is as stated."""
    rng = np.random.default_rng(0)
    n = 1200
    responds = rng.random(n) < 0.3
    largest = np.where(responds, rng.normal(0, 1.0, n), 0.0)
    ec50 = np.exp(rng.uniform(np.log(0.05), np.log(200), n))
    true_DG = hill(DOSES, largest, ec50, np.exp(rng.uniform(np.log(0.5), np.log(4), n)))
    variance_DG = rng.uniform(0.05, 0.2, (len(DOSES), n)) ** 2
    control_G = rng.uniform(0.05, 0.2, n) ** 2
    # All doses share the noise of the controls.
    measured_DG = true_DG + np.sqrt(variance_DG) * rng.normal(size=true_DG.shape)
    measured_DG -= np.sqrt(control_G) * rng.normal(size=n)
    found = fit_curves(DOSES, measured_DG, variance_DG, control_G, rng)
    sure = found.lfsr_G < 0.05
    assert sure[responds].mean() > 0.5
    assert (np.sign(found.largest_G) != np.sign(largest))[sure].mean() < 0.02
    low, _, high = found.ec50_3G
    assert 0.86 < ((low <= ec50) & (ec50 <= high))[sure].mean() < 0.99
    in_band = (found.fitted_3DG[0] <= true_DG) & (true_DG <= found.fitted_3DG[2])
    assert 0.83 < in_band[:, sure].mean() < 0.97
    error = np.abs(found.largest_G - largest) / found.largest_sd_G
    assert 0.8 < (error[sure] < 1.645).mean() < 0.98


def test_a_known_ec50_is_recovered_from_cells() -> None:
    adata, largest = screen()
    curves = cd.tl.dose_response(adata).set_index("gene").loc[adata.var_names]
    changes = largest != 0
    sure = (curves["lfsr"] < 0.05).to_numpy()
    assert sure[changes].all()
    assert not sure[~changes].any()
    own = curves[changes]
    assert np.exp(np.log(own["ec50"]).mean()) == pytest.approx(3.0, rel=0.25)
    assert ((own["ec50_low"] <= 3.0) & (own["ec50_high"] >= 3.0)).mean() >= 0.8
    assert (own["in_range"] > 0.95).all()
    assert own["log2_fold_change"].to_numpy() == pytest.approx(
        largest[changes] / np.log(2), abs=0.6
    )
    assert curves.index.is_unique


def test_nothing_responds_to_nothing() -> None:
    called = []
    for seed in range(4):
        adata, _ = screen(seed)
        adata.X = adata.X[np.random.default_rng(seed).permutation(adata.n_obs)]
        called.append((cd.tl.dose_response(adata)["lfsr"] < 0.05).mean())
    assert np.mean(called) < 0.01


def test_curves_are_monotone_and_scale_with_the_unit() -> None:
    adata, _ = screen()
    first = cd.tl.dose_response(adata).set_index("gene")
    points = adata.uns["dose_response_points"]
    for gene, own in points.groupby("gene"):
        steps = np.diff(own.sort_values("dose")["fitted"])
        if first.loc[gene, "lfsr"] < 0.05:
            assert (steps * np.sign(first.loc[gene, "log2_fold_change"]) > -1e-6).all()
    adata.obs["um"] *= 1000
    setup(adata)
    other = cd.tl.dose_response(adata).set_index("gene").loc[first.index]
    assert other["ec50"].to_numpy() == pytest.approx(1000 * first["ec50"].to_numpy())
    assert other["lfsr"].to_numpy() == pytest.approx(first["lfsr"].to_numpy())


def test_programs_are_surer_than_their_genes() -> None:
    adata, largest = screen(n_cells=20)
    risen = [f"gene{g}" for g in np.flatnonzero(largest > 0)]
    one = cd.tl.dose_response(adata).set_index("gene").loc[risen]
    program = cd.tl.dose_response(adata, programs={"risen": risen}).iloc[0]
    assert program["gene"] == "risen"
    width = np.log(program["ec50_high"] / program["ec50_low"])
    assert width < np.log(one["ec50_high"] / one["ec50_low"]).median()
    with pytest.raises(UnknownNameError, match="gene of the program 'risen' 'gen0'"):
        cd.tl.dose_response(adata, programs={"risen": ["gen0"]})


def test_one_level_is_refused() -> None:
    adata, _ = screen()
    adata = adata[adata.obs["um"].isin([0.0, 1.0])].copy()
    with pytest.raises(
        InputError, match="No perturbation has 3 doses above 0 with at least 10 cells"
    ):
        cd.tl.dose_response(adata)
    assert "dose_response" not in adata.uns
    cd.CellDiT.setup_anndata(adata, perturbation_key="drug")
    with pytest.raises(InputError, match="set up without dose_key"):
        cd.tl.dose_response(adata)
