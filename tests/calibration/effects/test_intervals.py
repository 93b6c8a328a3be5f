"""Readings and intervals are learned from comparisons, and from what was measured alone."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit.calibration.effects.intervals import (
    RESPONDS,
    Compared,
    error_of_genes,
    fit_widths,
    reading,
    with_followed,
)
from celldit.calibration.rates.means import mean_rates, measured_fold_change
from celldit.conditions.extrapolation import Extrapolation
from celldit.data.cells import Cells
from celldit.data.fields import Fields


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
        calibrated_G = rng.normal(size=40)
        decoded_G = 0.7 * calibrated_G + rng.normal(0, 0.5, 40)
        measured_G = 0.3 * calibrated_G + 0.4 * decoded_G + rng.normal(0, 0.1, 40)
        rest = np.full((3, 40), 0.01)
        compared.append(Compared(Extrapolation.SEEN, calibrated_G, decoded_G, measured_G, *rest))
    assert reading(compared) == pytest.approx((0.3, 0.4), abs=0.04)
    # Nothing is made larger than the aim has it.
    larger = [replace(one, measured_G=3 * one.measured_G) for one in compared]
    assert sum(reading(larger)) == pytest.approx(1)
    # Without a word from the data it is the aim.
    silent = [replace(one, measured_G=0 * one.measured_G) for one in compared[:1]]
    assert 0 < reading(silent)[0] < 1


def test_genes_that_never_respond_are_surer() -> None:
    sd_G = np.repeat([0.1, 1.0], 300)
    fitted = fit_widths(made_up(sd_G, 12, 0))
    found_G = fitted.scale(np.full(600, 0.01), np.zeros(600), None)
    quiet, loud = found_G[:300], found_G[300:]
    assert np.median(quiet) < 0.6 * np.median(loud)
    # Both as large as the errors, or larger, since those that respond are to be held, too.
    assert (loud > 0.7).mean() > 0.9
    assert (quiet > 0.1).mean() > 0.9


def test_a_condition_does_not_vouch_for_itself() -> None:
    # Genes that are off in one condition only look no worse there than others, but elsewhere.
    error_CG = np.zeros((5, 100))
    error_CG[0, :10] = 3.0
    others_CG, all_G = error_of_genes(error_CG**2, np.full((5, 100), 0.01))
    assert others_CG[0, 7] == pytest.approx(others_CG[0, 20])
    assert others_CG[1, 7] > 2 * others_CG[1, 20]
    assert all_G[7] > 2 * all_G[20]


def test_one_condition_is_enough() -> None:
    (compared,) = made_up(np.full(200, 0.5), 1, 1)
    fitted = fit_widths([compared])
    assert fitted.n_responding == (compared.strength_G > RESPONDS**2).sum()
    found_G = fitted.scale(np.full(200, 0.01), np.zeros(200), None)
    assert np.isfinite(found_G).all()
    assert 0.4 < np.median(found_G) < 1.5


def test_a_kind_with_few_trials_borrows() -> None:
    few, many = made_up(np.full(200, 0.2), 2, 1), made_up(np.full(200, 1.0), 30, 2)
    alone, borrowing = fit_widths(few), fit_widths(few, [many])
    own = fit_widths(made_up(np.full(200, 0.2), 40, 1), [many])
    sd = [np.median(each.scale(np.full(200, 0.01), np.zeros(200), None)) for each in
          (alone, own, borrowing, fit_widths(many))]  # fmt: skip
    assert sd == sorted(sd)
    # Many trials of its own leave little to borrow.
    assert sd[1] < 0.7 * sd[2]
    # How a kind is read stays its own.
    assert (borrowing.calibrated, borrowing.decoded) == (alone.calibrated, alone.decoded)


def test_where_a_gene_is_measured_badly_the_prior_counts_for_more() -> None:
    rng = np.random.default_rng(0)
    noise_G, prior_G = np.tile([0.01, 0.25], 150), np.repeat([0.01, 0.04, 0.25], 100)
    compared = []
    for _ in range(20):
        variance_G = prior_G + 2 * np.sqrt(prior_G * noise_G)
        error_G = rng.normal(0, np.sqrt(variance_G + noise_G))
        zero_G, strength_G = np.zeros(300), error_G**2 / noise_G
        compared.append(
            Compared(Extrapolation.CONTEXT, zero_G, zero_G, error_G, prior_G, noise_G, strength_G)
        )
    found_G = fit_widths(compared).scale(np.sqrt(prior_G), np.zeros(300), None)
    well, badly = found_G[::2], found_G[1::2]
    assert (badly > 1.2 * well).mean() > 0.9


@pytest.mark.parametrize("follows", [0.4, 0.9])
def test_errors_of_seen_conditions_are_those_against_other_cells(follows: float) -> None:
    # Residuals hold less of the noise, the more the prediction has followed it.
    rng = np.random.default_rng(0)
    shape, noise = (30, 300), 0.09
    truth_CG, off_CG = rng.normal(0, 1.0, shape), rng.normal(0, 0.2, shape)
    measured_CG = truth_CG + rng.normal(0, noise**0.5, shape)
    left_out_CG = truth_CG + off_CG
    predicted_CG = left_out_CG + follows * (measured_CG - left_out_CG)

    def compared(kind: Extrapolation, told_CG: np.ndarray) -> list[Compared]:
        rest_G = np.full(shape[1], 1e-4), np.full(shape[1], noise)
        return [
            Compared(kind, told_G, told_G, measured_G, *rest_G, measured_G**2 / noise)
            for told_G, measured_G in zip(told_CG, measured_CG, strict=True)
        ]

    seen = compared(Extrapolation.SEEN, predicted_CG)
    left_out = compared(Extrapolation.UNSEEN, left_out_CG)
    followed = with_followed(seen, left_out)
    assert np.mean([one.followed_G for one in followed]) == pytest.approx(follows, abs=0.1)
    fitted = fit_widths(followed)
    sd_CG = fitted.scale(np.full(shape, 0.01), predicted_CG, None)
    off_CG = np.abs(truth_CG - predicted_CG)
    responds_CG = rng.normal(truth_CG, noise**0.5) ** 2 > RESPONDS**2 * noise
    assert 0.85 < (off_CG < 1.645 * sd_CG)[responds_CG].mean() < 0.99
    assert sd_CG[responds_CG].mean() < 2.5 * np.sqrt((off_CG[responds_CG] ** 2).mean())


def test_noise_of_controls_that_predictions_do_not_follow_is_no_error() -> None:
    # All conditions are counted from the same few controls; nothing else is wrong.
    rng = np.random.default_rng(0)
    n_conditions, n_genes, of_controls, of_cells, error = 30, 400, 1.0, 0.04, 0.15
    controls_G = rng.normal(0, of_controls**0.5, n_genes)
    compared = []
    for _ in range(n_conditions):
        predicted_G = rng.normal(0, 1.0, n_genes)
        true_G = predicted_G + rng.normal(0, error, n_genes)
        measured_G = true_G - controls_G + rng.normal(0, of_cells**0.5, n_genes)
        strength_G = measured_G**2 / (of_cells + of_controls)
        compared.append(
            Compared(
                Extrapolation.SEEN, predicted_G, predicted_G, measured_G, np.full(n_genes, 1e-4),
                np.full(n_genes, of_cells), strength_G, ("", None), np.full(n_genes, of_controls),
            )
        )  # fmt: skip
    followed = with_followed(compared, compared)
    assert followed[0].control_followed < 0.2
    sd_G = fit_widths(followed).scale(np.full(n_genes, 0.01), np.zeros(n_genes), None)
    assert np.median(sd_G) < 0.4 * of_controls**0.5
    # Those that follow them have to be as unsure as these are: the noise is added to their widths.
    same = [
        replace(
            one, calibrated_G=one.calibrated_G - controls_G, decoded_G=one.decoded_G - controls_G
        )
        for one in compared
    ]
    assert with_followed(same, same)[0].control_followed > 0.7


def test_where_nothing_responds_the_next_in_line_do_not_decide() -> None:
    # Of 6,000 measurements of nothing thirty are far out, by their noise.
    rng = np.random.default_rng(0)
    compared = []
    for _ in range(10):
        measured_G, nothing_G = rng.normal(0, 1.0, 600), np.zeros(600)
        compared.append(
            Compared(
                Extrapolation.UNSEEN, nothing_G, nothing_G, measured_G, np.full(600, 1e-4),
                np.ones(600), measured_G**2,
            )
        )  # fmt: skip
    sd_G = fit_widths(compared).scale(np.full(600, 0.01), nothing_G, None)
    assert np.median(sd_G) < 0.25
