from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA

from celldit.evaluation import representation
from celldit.evaluation.representation import fit_components


def test_components_are_those_of_sklearn() -> None:
    x = np.random.default_rng(0).normal(size=(80, 12)) * np.arange(1, 13)
    found = fit_components(sparse.csr_matrix(x.astype(np.float32)), 5)
    expected = PCA(5, svd_solver="full").fit_transform(x)
    np.testing.assert_allclose(np.abs(found.transform(x)), np.abs(expected), atol=1e-3)
    np.testing.assert_allclose(found.components_ @ found.components_.T, np.eye(5), atol=1e-5)


def test_many_genes_take_the_iterative_road_to_the_same_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = sparse.random(60, 40, density=0.3, random_state=0, format="csr", dtype=np.float64)
    direct = fit_components(x, 4).transform(x)
    monkeypatch.setattr(representation, "MOST_GENES_FOR_COVARIANCE", 10)
    iterative = fit_components(x, 4, seed=3).transform(x)
    np.testing.assert_allclose(np.abs(iterative), np.abs(direct), atol=1e-4)
    again = fit_components(x, 4, seed=3).transform(x)
    np.testing.assert_array_equal(iterative, again)


def test_fewer_cells_than_components() -> None:
    x = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    assert fit_components(x, 50).transform(x).shape == (6, 6)
