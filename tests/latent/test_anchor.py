"""The linear start equals scikit-learn's principal component analysis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.decomposition import PCA

from celldit import components
from celldit.latent.anchor import choose_n_dims, fit_anchor


def correlated(n_cells: int, n_features: int, seed: int = 0) -> np.ndarray:
    """Sparse non-negative features whose principal components differ clearly in size."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(1.0, 1.0, (n_cells, 8)) @ (
        rng.random((8, n_features)) * 0.7 ** np.arange(8)[:, None]
    )
    return (x * (rng.random(x.shape) < 0.7)).astype(np.float32)


def scores_of(x: np.ndarray, n_tokens: int, token_dim: int) -> tuple[np.ndarray, object]:
    anchor = fit_anchor(x, n_tokens, token_dim, seed=0)
    return np.asarray(x @ anchor.loadings - anchor.offset, dtype=np.float64), anchor


@pytest.mark.parametrize(("n_cells", "n_features"), [(80, 12), (10, 30)])
def test_equals_pca(n_cells: int, n_features: int) -> None:
    x = correlated(n_cells, n_features)
    scores, anchor = scores_of(x, 3, 2)
    pca = PCA(6, svd_solver="full").fit(x.astype(np.float64))
    unscaled = anchor.loadings * np.repeat(anchor.scale, 2)
    overlap = np.abs(np.sum(unscaled * pca.components_.T, axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-4)
    variances = (scores * np.repeat(anchor.scale, 2)).var(axis=0)
    np.testing.assert_allclose(variances, pca.explained_variance_ * (1 - 1 / n_cells), rtol=1e-3)
    assert anchor.explained == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-4)


@given(
    st.integers(8, 60), st.integers(4, 20), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99)
)
def test_tokens_are_centred_with_unit_size(
    n_cells: int, n_features: int, n_tokens: int, token_dim: int, seed: int
) -> None:
    x = correlated(n_cells, n_features, seed)
    scores, _ = scores_of(x, n_tokens, token_dim)
    tokens = scores.reshape(n_cells, n_tokens, token_dim)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-4)
    size = np.sqrt((tokens**2).mean(axis=(0, 2)))
    assert np.all((np.abs(size - 1) < 1e-2) | (size < 1e-3))
    assert size[0] == pytest.approx(1, abs=1e-2)


def test_sparse_equals_dense() -> None:
    x = correlated(60, 15)
    dense, thin = (fit_anchor(m, 2, 3, seed=0) for m in (x, sparse.csr_matrix(x)))
    np.testing.assert_allclose(thin.loadings, dense.loadings, atol=1e-4)
    np.testing.assert_allclose(thin.offset, dense.offset, atol=1e-4)
    assert thin.explained == pytest.approx(dense.explained, abs=1e-5)


def test_dimensions_beyond_the_rank_are_silent() -> None:
    x = correlated(40, 4)
    scores, anchor = scores_of(x, 3, 2)
    assert (anchor.loadings[:, 4:] == 0).all()
    assert (scores[:, 4:] == 0).all()
    assert np.isfinite(anchor.loadings).all()
    assert anchor.explained == pytest.approx(1, abs=1e-5)


def test_constant_features() -> None:
    scores, anchor = scores_of(np.ones((10, 5), dtype=np.float32), 2, 2)
    assert np.isfinite(anchor.loadings).all()
    np.testing.assert_allclose(scores, 0, atol=1e-5)


def test_many_features_take_another_way_to_the_same_components(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = correlated(300, 400)
    exact = fit_anchor(x, 2, 2, seed=0)
    for few, small in ((1_000, 10), (100, 10)):  # Lanczos iterations, then no scatter matrix at all
        monkeypatch.setattr(components, "FEW_FEATURES", few)
        monkeypatch.setattr(components, "SMALL", small)
        found = fit_anchor(sparse.csr_matrix(x), 2, 2, seed=0)
        assert found.explained == pytest.approx(exact.explained, rel=1e-4)
        np.testing.assert_allclose(found.loadings, exact.loadings, atol=2e-3)
        np.testing.assert_allclose(found.offset, exact.offset, atol=2e-2)


def test_the_sign_does_not_depend_on_the_order_of_cells() -> None:
    x = correlated(50, 10)
    again = fit_anchor(x[np.random.default_rng(1).permutation(50)], 2, 2, seed=0)
    np.testing.assert_allclose(again.loadings, fit_anchor(x, 2, 2, seed=0).loadings, atol=1e-3)


@pytest.mark.parametrize(
    ("n_cells", "n_genes", "expected"),
    [(10_000, 2000, 48), (100, 2000, 10), (1000, 20, 6), (3, 3, 2)],
)
def test_size_of_the_latent(n_cells: int, n_genes: int, expected: int) -> None:
    assert choose_n_dims(n_cells, n_genes) == expected
