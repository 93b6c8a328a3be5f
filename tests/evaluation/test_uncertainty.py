from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from celldit import datasets
from celldit.data import setup_anndata
from celldit.errors import InputError
from celldit.evaluation import detectable
from celldit.evaluation.metrics import energy_distance
from celldit.evaluation.uncertainty import permutation_p_value


def test_strong_effects_are_detected_and_controls_are_not(papalexi: Any) -> None:
    adata = papalexi.whole[papalexi.whole.obs["replicate"] == "rep_1"].copy()
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    controls = np.flatnonzero(labels == "control")
    labels[np.random.default_rng(0).permutation(controls)[:100]] = "sham"
    adata.obs["perturbation"] = labels
    keep = np.isin(labels, ["control", "sham", "IFNGR1", "SMAD4"])
    table = detectable(adata[keep].copy(), adata, n_permutations=100, max_cells=150)
    found = table.set_index("perturbation")
    assert found["detectable"].to_dict() == {"IFNGR1": True, "SMAD4": True, "sham": False}
    assert found.loc["IFNGR1", "p_value"] == pytest.approx(1 / 101)
    assert (found["n_cells"] > 0).all()


def test_untested_conditions_keep_their_row() -> None:
    adata = datasets.kang()[:, :200].copy()
    setup_anndata(
        adata,
        perturbation_key="condition",
        covariate_keys=["cell_type"],
        size_factor_key="total_umis",
    )
    kept = adata.obs["cell_type"].isin(["Eryth", "pDC"])
    table = detectable(adata[kept].copy(), adata[kept].copy(), n_permutations=20)
    rare = table[table["context"] == "Eryth"].iloc[0]
    assert np.isnan(rare["p_value"])
    assert not rare["detectable"]
    with pytest.raises(InputError, match="n_permutations"):
        detectable(adata, adata, n_permutations=0)


def test_permutation_energy_is_the_energy_distance() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(45, 4)) + 0.3
    energy, p_value = permutation_p_value(x, y, n_permutations=50)
    assert energy == pytest.approx(energy_distance(x, y), abs=1e-9)
    assert 1 / 51 <= p_value <= 1


def test_p_values_of_equal_samples_are_uniform() -> None:
    rng = np.random.default_rng(1)
    found = [permutation_p_value(*rng.normal(size=(2, 12, 3)), 60, seed)[1] for seed in range(120)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
