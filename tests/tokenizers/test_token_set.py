from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import InputError
from celldit.tokenizers import PackedTokens, TokenSet


@st.composite
def token_sets(draw: st.DrawFn) -> TokenSet:
    n_cells, n_tokens, n_values = draw(st.tuples(*[st.integers(1, 6)] * 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    mask = torch.rand(n_cells, n_tokens, generator=generator) < draw(st.floats(0, 1))
    values = torch.randn(n_cells, n_tokens, n_values, generator=generator)
    identities = torch.randint(0, 9, (n_cells, n_tokens), generator=generator)
    return TokenSet(values * mask[:, :, None], identities * mask, mask)


@settings(deadline=None, max_examples=40)
@given(token_sets())
def test_packing_and_padding_keep_every_real_token(tokens: TokenSet) -> None:
    padded = tokens.pack().pad()
    assert torch.equal(padded.lengths, tokens.lengths)
    for cell in range(tokens.n_cells):
        for before, after in (
            (tokens.values, padded.values),
            (tokens.identities, padded.identities),
        ):
            assert torch.equal(before[cell][tokens.mask[cell]], after[cell][padded.mask[cell]])
    assert not padded.values[~padded.mask].any()
    assert not padded.identities[~padded.mask].any()


@settings(deadline=None, max_examples=40)
@given(token_sets())
def test_padding_and_packing_is_the_identity_on_packed_tokens(tokens: TokenSet) -> None:
    packed = tokens.pack()
    again = packed.pad().pack()
    assert torch.equal(packed.values, again.values)
    assert torch.equal(packed.identities, again.identities)
    assert torch.equal(packed.cu_lengths, again.cu_lengths)
    assert packed.cu_lengths.dtype == torch.int32
    assert packed.max_length == again.max_length == int(tokens.lengths.max())
    assert packed.n_tokens == int(tokens.mask.sum())


@settings(deadline=None, max_examples=20)
@given(token_sets(), st.integers(1, 4))
def test_more_padding_packs_to_the_same(tokens: TokenSet, extra: int) -> None:
    pad = torch.nn.functional.pad
    wider = TokenSet(
        pad(tokens.values, (0, 0, 0, extra)),
        pad(tokens.identities, (0, extra)),
        pad(tokens.mask, (0, extra)),
    )
    assert torch.equal(wider.pack().values, tokens.pack().values)
    assert torch.equal(wider.pack().cu_lengths, tokens.pack().cu_lengths)


def test_cells_without_tokens_get_padding() -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    padded = TokenSet(torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.long), mask).pack().pad()
    assert padded.values.shape == (2, 1, 1)
    assert not padded.mask.any()


def test_moves_to_a_device() -> None:
    tokens = TokenSet(torch.ones(1, 1, 1), torch.zeros(1, 1).long(), torch.ones(1, 1).bool())
    assert tokens.to("meta").mask.device.type == "meta"
    assert tokens.pack().to("meta").cu_lengths.device.type == "meta"


VALUES, IDENTITIES = torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.long)
MASK = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("values", "identities", "mask", "text"),
    [
        (VALUES[:, :, 0], IDENTITIES, MASK, r"\(cells, tokens, values per token\)"),
        (VALUES, IDENTITIES[:, :2], MASK, r"identities .* \(2, 3\)"),
        (VALUES, IDENTITIES, MASK[:1], r"mask .* \(2, 3\)"),
        (VALUES.double(), IDENTITIES, MASK, "float32"),
        (VALUES, IDENTITIES.int(), MASK, "long"),
        (VALUES, IDENTITIES, MASK.long(), "bool"),
        (VALUES, IDENTITIES, MASK.to("meta"), "one device"),
    ],
)
def test_what_does_not_fit_is_refused(
    values: torch.Tensor, identities: torch.Tensor, mask: torch.Tensor, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        TokenSet(values, identities, mask)


def test_packed_tokens_that_do_not_fit_are_refused() -> None:
    values, identities = torch.zeros(4, 1), torch.zeros(4, dtype=torch.long)
    cu_lengths = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(InputError, match="one identity per token"):
        PackedTokens(values, identities[:3], cu_lengths, 4)
    with pytest.raises(InputError, match="int32"):
        PackedTokens(values, identities, cu_lengths.long(), 4)
    with pytest.raises(InputError, match=r"cells \+ 1"):
        PackedTokens(values, identities, cu_lengths[None], 4)
