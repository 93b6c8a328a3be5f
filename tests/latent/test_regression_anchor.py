"""The linear start over tokens says as much about the genes as a latent of its width can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from celldit.latent.anchor import Anchor, fit_anchor
from celldit.latent.regression_anchor import fit_regression_anchor


def genes(n_cells: int, n_genes: int, seed: int = 0) -> np.ndarray:
    """Non-negative, with programmes of different strength."""
    rng = np.random.default_rng(seed)
    programmes = rng.gamma(1.0, 1.0, (n_cells, 6)) * 0.6 ** np.arange(6)
    y = programmes @ rng.random((6, n_genes)) + 0.05 * rng.random((n_cells, n_genes))
    return y.astype(np.float32)


def latent(x: np.ndarray, anchor: Anchor) -> np.ndarray:
    return np.asarray(x @ anchor.loadings - anchor.offset, dtype=np.float64)


def read_back(z: np.ndarray, y: np.ndarray) -> float:
    """Share of the variance of y that a regression on z explains."""
    centred = y - y.mean(0)
    z = z - z.mean(0)
    fitted = z @ np.linalg.lstsq(z, centred, rcond=None)[0]
    return float(1 - ((centred - fitted) ** 2).sum() / (centred**2).sum())


def test_where_tokens_are_the_genes_it_is_their_principal_components() -> None:
    y = genes(200, 12)
    found = fit_regression_anchor(y, sparse.csr_matrix(y), 2, 2)
    pca = fit_anchor(y, 2, 2, 0)
    agree = np.abs(np.corrcoef(latent(y, found).T, latent(y, pca).T)[:4, 4:].diagonal())
    assert agree[:3].min() > 0.99
    assert found.explained == pytest.approx(pca.explained, abs=0.01)


def test_a_programme_that_many_tokens_repeat_does_not_crowd_out_the_others() -> None:
    y = genes(300, 20)
    # The weakest direction of the genes, twenty times over and large, beside all the others once.
    directions = np.linalg.svd(y - y.mean(0), full_matrices=False)[2]
    rng = np.random.default_rng(0)
    weak = 30 * (y @ directions[5])[:, None] + 0.01 * rng.normal(size=(300, 20))
    x = np.concatenate([y @ directions[:6].T, weak], axis=1).astype(np.float32)
    told = read_back(latent(x, fit_regression_anchor(x, sparse.csr_matrix(y), 1, 3)), y)
    untold = read_back(latent(x, fit_anchor(x, 1, 3, 0)), y)
    best = read_back((y - y.mean(0)) @ directions[:3].T, y)
    assert told > best - 0.01
    assert untold < best - 0.02, "components of the features spend a dimension on the repeated one"


@given(st.integers(10, 60), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_tokens_are_centred_with_unit_size(
    n_cells: int, n_features: int, n_tokens: int, seed: int
) -> None:
    y = genes(n_cells, 15, seed)
    x = y @ np.random.default_rng(seed).normal(size=(15, n_features)).astype(np.float32)
    anchor = fit_regression_anchor(x, sparse.csr_matrix(y), n_tokens, 2)
    z = latent(x, anchor)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-3)
    size = np.sqrt((z.reshape(n_cells, n_tokens, 2) ** 2).mean((0, 2)))
    assert np.all((np.abs(size - 1) < 2e-2) | (size < 1e-3))
    assert 0 <= anchor.explained <= 1 + 1e-6


def test_constant_and_fewer_features_are_silent() -> None:
    y = genes(40, 10)
    flat = fit_regression_anchor(np.ones((40, 3), np.float32), sparse.csr_matrix(y), 2, 2)
    np.testing.assert_allclose(latent(np.ones((40, 3), np.float32), flat), 0, atol=1e-5)
    few = fit_regression_anchor(y[:, :3], sparse.csr_matrix(y), 2, 2)
    assert (few.loadings[:, 3:] == 0).all()
    assert np.isfinite(few.loadings).all()
