"""Intervals of conditions that were measured hold what they say, in few cells and in many."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.training import TrainingConfig

N_GENES, N_PERTURBATIONS, N_CONTROLS = 60, 16, 150


@pytest.mark.parametrize("n_cells", [5, 50])
def test_intervals_of_measured_conditions_hold_what_they_say(n_cells: int) -> None:
    # Predictions follow the noise of their own cells: how far the two agree is no error.
    screen, true = screen_of(n_cells)
    model = cd.CellDiT(screen, "modules")
    config = TrainingConfig(new_cells=False)
    model.train(0, config=config, enable_progress_bar=False)
    table = model.predict_effects(sorted(true))
    truth = np.concatenate([true[label] for label in dict.fromkeys(table["perturbation"])])
    error = table["log_fold_change"].to_numpy() - truth
    responds = np.abs(truth - np.median(truth)) > 0.2
    held = np.abs(error) < 1.645 * table["sd"].to_numpy()
    assert 0.85 <= held.mean() <= 0.985
    assert held[responds].mean() >= 0.8
    assert held[~responds].mean() >= 0.85
    # Nor are they right by being wide in some places and narrow in others.
    of_sds, of_errors = (np.sqrt((x**2).mean()) for x in (table["sd"], error))
    assert 0.8 < of_sds / of_errors < 1.6


def screen_of(n_cells: int) -> tuple[ad.AnnData, dict[str, np.ndarray]]:
    """Perturbations of some cells each, three genes in ten of which respond, and what is true."""
    rng = np.random.default_rng(0)
    base_G = rng.gamma(1, 1, N_GENES) + 0.05
    log_PG = rng.normal(0, 1, (N_PERTURBATIONS, N_GENES)) * (rng.random(N_GENES) < 0.3)
    names = [f"P{i:02d}" for i in range(N_PERTURBATIONS)]
    effects = {"control": np.zeros(N_GENES), **dict(zip(names, log_PG, strict=True))}
    counts, labels = [], []
    for name, log_G in effects.items():
        n = N_CONTROLS if name == "control" else n_cells
        share_G = base_G * np.exp(log_G) / (base_G * np.exp(log_G)).sum()
        mean_NG = rng.lognormal(np.log(6000), 0.3, (n, 1)) * share_G
        counts.append(rng.poisson(rng.gamma(4.0, mean_NG / 4.0)))
        labels += [name] * n
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    matrix = sparse.csr_matrix(np.concatenate(counts).astype(np.float32))
    screen = ad.AnnData(matrix, obs, pd.DataFrame(index=[f"gene{g}" for g in range(N_GENES)]))
    cd.CellDiT.setup_anndata(screen, perturbation_key="perturbation", control="control")
    total = base_G.sum()
    return screen, {
        name: effects[name] - np.log((base_G * np.exp(effects[name])).sum() / total)
        for name in names
    }
