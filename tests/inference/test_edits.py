"""Drawn counts follow their law, and every cell has random numbers of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import nbinom

from celldit.inference.edits import draw_counterfactual_counts, draw_counts, n_unlike
from celldit.latent.likelihoods import CountModel

THETA = np.array([0.5, 2.0, 10.0, 1e4])
OLD = np.array([3.0, 8.0, 1.5, 20.0])
N = 6_000


def model(mean: np.ndarray, n: int, theta: np.ndarray = THETA) -> CountModel:
    return CountModel(torch.from_numpy(np.tile(mean, (n, 1))), torch.from_numpy(theta))


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return draw_counts(model(OLD, N), np.arange(N), seed=0).toarray()


def assert_law(counts: np.ndarray, mean: np.ndarray) -> None:
    """Mean and variance within five standard errors, and the share of zeros."""
    variance = mean + mean**2 / THETA
    error = np.sqrt(variance / len(counts))
    assert (np.abs(counts.mean(0) - mean) < 5 * error).all()
    np.testing.assert_allclose(counts.var(0), variance, rtol=0.15)
    for gene, theta in enumerate(THETA):
        zeros = nbinom.pmf(0, theta, theta / (theta + mean[gene]))
        assert abs((counts[:, gene] == 0).mean() - zeros) < 5 * np.sqrt(zeros / len(counts)) + 1e-3


def test_counts_are_negative_binomial(drawn: np.ndarray) -> None:
    assert_law(drawn, OLD)
    correlation = np.corrcoef(drawn.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.06


@pytest.mark.parametrize(
    "ratio",
    [np.full(4, 0.3), np.full(4, 4.0), np.array([0.5, 2.0, 1.0, 0.1])],
    ids=["fall", "rise", "mixed"],
)
def test_edited_counts_follow_the_new_law(drawn: np.ndarray, ratio: np.ndarray) -> None:
    new = np.tile(OLD * ratio, (N, 1))
    seen = sparse.csr_matrix(drawn)
    edited = draw_counterfactual_counts(model(OLD, N), seen, new, np.arange(N), seed=1).toarray()
    assert_law(edited, OLD * ratio)
    same = ratio == 1
    assert np.array_equal(edited[:, same], drawn[:, same])
    # The cell stays the same cell: what was high stays high.
    for gene in range(3):
        assert np.corrcoef(edited[:, gene], drawn[:, gene])[0, 1] > 0.3


def test_the_expectation_of_an_edit_is_the_counterfactual_mean() -> None:
    seen, new = np.array([[0, 5, 3, 25]]), np.array([[6.0, 4.0, 3.0, 10.0]])
    one = model(OLD, 1)
    expected = one.counterfactual_mean(torch.from_numpy(seen).double(), torch.from_numpy(new))
    counts = draw_counterfactual_counts(
        model(OLD, N), sparse.csr_matrix(np.tile(seen, (N, 1))), np.tile(new, (N, 1)),
        np.arange(N), seed=0,
    ).toarray()  # fmt: skip
    error = counts.std(0) / np.sqrt(N)
    assert (np.abs(counts.mean(0) - expected.numpy()[0]) < 5 * error + 1e-12).all()


@given(st.lists(st.integers(0, 500), min_size=4, max_size=4), st.integers(0, 2**70))
def test_an_unchanged_mean_gives_the_counts_back(counts: list[int], seed: int) -> None:
    seen = sparse.csr_matrix(np.array([counts]))
    again = draw_counterfactual_counts(model(OLD, 1), seen, OLD[None], np.array([7]), seed)
    assert np.array_equal(again.toarray(), seen.toarray())


@given(st.lists(st.floats(0, 1e3), min_size=4, max_size=4), st.integers(0, 1000))
def test_falling_means_only_remove(new: list[float], seed: int) -> None:
    seen = np.array([[4, 0, 9, 30]])
    target = np.minimum(np.array([new]), OLD)
    drawn = draw_counterfactual_counts(
        model(OLD, 1), sparse.csr_matrix(seen), target, np.array([0]), seed
    ).toarray()
    assert (drawn <= seen).all()
    assert (drawn >= 0).all()
    assert (drawn[target == 0] == 0).all()


def test_a_cell_is_the_same_in_any_company() -> None:
    keys = np.array([3, 17, 5, 2**40])
    whole = draw_counts(model(OLD, 4), keys, seed=9).toarray()
    for i in (2, 0, 3, 1):
        assert np.array_equal(draw_counts(model(OLD, 1), keys[[i]], seed=9).toarray()[0], whole[i])
    assert len({tuple(row) for row in whole}) == 4
    assert not np.array_equal(draw_counts(model(OLD, 4), keys, seed=10).toarray(), whole)


def test_what_fills_a_tile_repeats_its_last_cell() -> None:
    whole = draw_counts(model(OLD, 6), np.array([3, 17, 5, 5, 5, 5]), seed=9).toarray()
    keys = np.array([3, 17, 5])[: n_unlike(np.array([7, 8, 9, 9, 9, 9]))]
    assert np.array_equal(draw_counts(model(OLD, 6), keys, seed=9).toarray(), whole)
    assert n_unlike(np.arange(4)) == 4
    assert n_unlike(np.zeros(4, int)) == 1


def test_form_of_the_result() -> None:
    for counts in (
        draw_counts(model(OLD, 2), np.arange(2), 0),
        draw_counterfactual_counts(
            model(OLD, 2), sparse.csr_matrix((2, 4), dtype=np.float32), np.tile(OLD, (2, 1)),
            np.arange(2), 0,
        ),
    ):  # fmt: skip
        assert sparse.issparse(counts)
        assert counts.format == "csr"
        assert counts.dtype == np.int32
        assert counts.shape == (2, 4)


def test_enormous_means_stay_counts() -> None:
    counts = draw_counts(model(np.full(4, 1e30), 1), np.array([0]), 0).toarray()
    assert (counts >= 0).all()
