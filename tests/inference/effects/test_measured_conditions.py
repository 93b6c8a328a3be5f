"""Intervals hold what they say: of measured conditions, in few cells and in many, and of pairs."""

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
    assert 0.85 <= held.mean() <= 0.99
    assert held[responds].mean() >= 0.8
    assert held[~responds].mean() >= 0.85
    # Nor are they right by being wide in some places and narrow in others.
    of_sds, of_errors = (np.sqrt((x**2).mean()) for x in (table["sd"], error))
    assert 0.8 < of_sds / of_errors < 1.6


def test_intervals_of_a_pair_know_what_the_controls_of_both_parts_are_off_by() -> None:
    # Sixty controls are off by something, which each part's effect holds: their sum holds it twice.
    rng = np.random.default_rng(1)
    base_G = rng.gamma(1, 1, N_GENES) + 0.2
    names = ["A", "B", "C", "D"]
    own = {name: rng.normal(0, 0.5, N_GENES) * (rng.random(N_GENES) < 0.3) for name in names}
    labels = ["control", *names, "A+C", "B+D", "C+D", "A+B"]
    effects = {
        label: sum((own[part] for part in label.split("+") if part in own), np.zeros(N_GENES))
        for label in labels
    }
    screen = simulated(base_G, effects, dict.fromkeys(labels, 60))
    model = cd.CellDiT(screen[screen.obs["perturbation"] != "A+B"].copy(), "modules")
    model.train(0, config=TrainingConfig(new_cells=False), enable_progress_bar=False)
    table = model.predict_effects("A+B")
    error = table["log_fold_change"].to_numpy() - true_change(base_G, effects["A+B"])
    assert (np.abs(error) < 1.645 * table["sd"].to_numpy()).mean() > 0.8


def screen_of(n_cells: int) -> tuple[ad.AnnData, dict[str, np.ndarray]]:
    """Perturbations of some cells each, three genes in ten of which respond, and what is true."""
    rng = np.random.default_rng(0)
    base_G = rng.gamma(1, 1, N_GENES) + 0.05
    log_PG = rng.normal(0, 1, (N_PERTURBATIONS, N_GENES)) * (rng.random(N_GENES) < 0.3)
    names = [f"P{i:02d}" for i in range(N_PERTURBATIONS)]
    effects = {"control": np.zeros(N_GENES), **dict(zip(names, log_PG, strict=True))}
    sizes = {name: N_CONTROLS if name == "control" else n_cells for name in effects}
    true = {name: true_change(base_G, effects[name]) for name in names}
    return simulated(base_G, effects, sizes), true


def true_change(base_G: np.ndarray, log_G: np.ndarray) -> np.ndarray:
    """Log fold change of shares of the library."""
    return log_G - np.log((base_G * np.exp(log_G)).sum() / base_G.sum())


def simulated(
    base_G: np.ndarray, effects: dict[str, np.ndarray], sizes: dict[str, int]
) -> ad.AnnData:
    """Cells of each label, whose genes go as far from the base as its effect says."""
    rng = np.random.default_rng(0)
    counts, labels = [], []
    for name, log_G in effects.items():
        share_G = base_G * np.exp(log_G) / (base_G * np.exp(log_G)).sum()
        mean_NG = rng.lognormal(np.log(6000), 0.3, (sizes[name], 1)) * share_G
        counts.append(rng.poisson(rng.gamma(4.0, mean_NG / 4.0)))
        labels += [name] * sizes[name]
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    matrix = sparse.csr_matrix(np.concatenate(counts).astype(np.float32))
    screen = ad.AnnData(matrix, obs, pd.DataFrame(index=[f"gene{g}" for g in range(len(base_G))]))
    cd.CellDiT.setup_anndata(screen, perturbation_key="perturbation", control="control")
    return screen
