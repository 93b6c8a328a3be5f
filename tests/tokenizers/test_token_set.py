from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from celldit.errors import InputError
from celldit.tokenizers import TokenSet
from celldit.tokenizers.genes import padded


@given(st.lists(st.lists(st.integers(0, 8), unique=True), max_size=6), st.integers(0, 1000))
def test_cells_of_any_number_of_tokens_are_padded(sets: list[list[int]], seed: int) -> None:
    """What a cell has comes first, in its order; what follows is zero and masked."""
    lengths = np.array([len(s) for s in sets], dtype=np.int64)
    values = np.random.default_rng(seed).normal(size=lengths.sum())
    genes = np.array([g for s in sets for g in s], dtype=np.int64)
    ends = np.cumsum([0, *lengths])
    counts = sparse.csr_matrix((np.ones(len(genes)), genes, ends), shape=(len(sets), 9))
    tokens = padded(counts, values)
    assert tokens.values.shape == (len(sets), max([1, *lengths]), 1)
    assert tokens.lengths.tolist() == lengths.tolist()
    for i, own in enumerate(sets):
        n = len(own)
        assert tokens.mask[i].tolist() == [j < n for j in range(tokens.n_tokens)]
        assert tokens.identities[i, :n].tolist() == own
        expected = values[ends[i] : ends[i + 1]].astype(np.float32)
        np.testing.assert_array_equal(tokens.values[i, :n, 0], expected)
    assert not tokens.values[~tokens.mask].any()
    assert not tokens.identities[~tokens.mask].any()


VALUES, IDENTITIES = torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.long)
MASK = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("values", "identities", "mask", "text"),
    [
        (VALUES[:, :, 0], IDENTITIES, MASK, r"values .* \(cells, tokens, values per token\)"),
        (VALUES, IDENTITIES[:, :2], MASK, r"identities .* \(2, 3\)"),
        (VALUES, IDENTITIES, MASK[:1], r"mask .* \(2, 3\)"),
        (VALUES.double(), IDENTITIES, MASK, "values .* be torch.float32"),
        (VALUES, IDENTITIES.int(), MASK, "identities .* be torch.int64"),
        (VALUES, IDENTITIES, MASK.long(), "mask .* be torch.bool"),
        (VALUES, IDENTITIES, MASK.to("meta"), "one device"),
    ],
)
def test_what_does_not_fit_is_refused(
    values: torch.Tensor, identities: torch.Tensor, mask: torch.Tensor, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        TokenSet(values, identities, mask)
