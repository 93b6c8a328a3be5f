"""Readings and intervals are learned from comparisons, and from what was measured alone."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit.conditions.extrapolation import Extrapolation
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.samplers.calibrate import RESPONDS, Compared, _error_of_genes, _fit, _reading
from celldit.samplers.mean_rates import mean_rates, measured_fold_change


@pytest.mark.parametrize("n_cells", [20, 40, 400])
def test_genes_that_do_not_respond_seldom_seem_to(n_cells: int) -> None:
    # Of a gene without a count the scatter is zero: taken for its error, silence by chance passed
    # for a response.
    rng = np.random.default_rng(0)
    rate_G = np.geomspace(0.01, 100, 2_000)
    counts = rng.poisson(rate_G * 0.15, (2 * n_cells, 2_000)).astype(np.float32)
    obs = pd.DataFrame(
        {"perturbation": "control", "size": 1500.0}, index=[f"cell{i}" for i in range(2 * n_cells)]
    )
    adata = ad.AnnData(sparse.csr_matrix(counts), obs=obs)
    fields = Fields(perturbation_key="perturbation", size_factor_key="size")
    rates = mean_rates(Cells.from_anndata(adata, fields), np.repeat([0, 1], n_cells), {0, 1})
    fold_G, variance_G = measured_fold_change(rates[0], rates[1])
    assert (fold_G**2 > RESPONDS**2 * variance_G).mean() < 1e-3
    # Where much is counted, the standard error is as large as the error.
    z = fold_G[rate_G > 10] / np.sqrt(variance_G[rate_G > 10])
    assert 0.85 < z.std() < 1.15


def made_up(sd_G: np.ndarray, n_conditions: int, seed: int) -> list[Compared]:
    """Errors of known standard deviation, under effects that none predicted."""
    rng = np.random.default_rng(seed)
    noise_G = np.full(len(sd_G), 0.04)
    found = []
    for _ in range(n_conditions):
        error_G = rng.normal(0, np.sqrt(sd_G**2 + noise_G))
        zero_G, prior_G = np.zeros(len(sd_G)), np.full(len(sd_G), 1e-4)
        strength_G = error_G**2 / noise_G
        found.append(
            Compared(Extrapolation.UNSEEN, zero_G, zero_G, error_G, prior_G, noise_G, strength_G)
        )
    return found


def test_the_reading_is_found() -> None:
    rng = np.random.default_rng(0)
    compared = []
    for _ in range(300):
        aimed_G = rng.normal(size=40)
        decoded_G = 0.7 * aimed_G + rng.normal(0, 0.5, 40)
        measured_G = 0.3 * aimed_G + 0.4 * decoded_G + rng.normal(0, 0.1, 40)
        rest = np.full((3, 40), 0.01)
        compared.append(Compared(Extrapolation.SEEN, aimed_G, decoded_G, measured_G, *rest))
    assert _reading(compared) == pytest.approx((0.3, 0.4), abs=0.04)
    # Nothing is made larger than the aim has it.
    larger = [replace(one, measured_G=3 * one.measured_G) for one in compared]
    assert sum(_reading(larger)) == pytest.approx(1)
    # Without a word from the data it is the aim.
    silent = [replace(one, measured_G=0 * one.measured_G) for one in compared[:1]]
    assert 0 < _reading(silent)[0] < 1


def test_genes_that_never_respond_are_surer() -> None:
    sd_G = np.repeat([0.1, 1.0], 300)
    fitted = _fit(made_up(sd_G, 12, 0))
    found_G = fitted.sd(np.full(600, 0.01), np.zeros(600), None)
    quiet, loud = found_G[:300], found_G[300:]
    assert np.median(quiet) < 0.6 * np.median(loud)
    # Both as large as the errors, or larger, since those that respond are to be held, too.
    assert (loud > 0.7).mean() > 0.9
    assert (quiet > 0.1).mean() > 0.9


def test_a_condition_does_not_vouch_for_itself() -> None:
    # Genes that are off in one condition only look no worse there than others, but elsewhere.
    error_CG = np.zeros((5, 100))
    error_CG[0, :10] = 3.0
    others_CG, all_G = _error_of_genes(error_CG**2, np.full((5, 100), 0.01))
    assert others_CG[0, 7] == pytest.approx(others_CG[0, 20])
    assert others_CG[1, 7] > 2 * others_CG[1, 20]
    assert all_G[7] > 2 * all_G[20]


def test_one_condition_is_enough() -> None:
    fitted = _fit(made_up(np.full(200, 0.5), 1, 1))
    assert fitted.n_responding >= 30
    found_G = fitted.sd(np.full(200, 0.01), np.zeros(200), None)
    assert np.isfinite(found_G).all()
    assert 0.4 < np.median(found_G) < 1.5
