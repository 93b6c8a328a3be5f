"""Sparse rows become the dense rows they stand for."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from celldit.latent.sparse_rows import SparseRows


@given(n=st.integers(0, 5), g=st.integers(1, 7), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_dense_rows_are_those_of_scipy(n: int, g: int, share: float, seed: int) -> None:
    rows = sparse.random(n, g, share, "csr", np.float32, random_state=seed)
    for made in (SparseRows.of(rows), SparseRows.of(rows).to(torch.device("cpu"))):
        dense = made.dense()
        assert dense.shape == (n, g)
        assert dense.dtype == torch.float32
        np.testing.assert_array_equal(dense.numpy(), rows.toarray())
