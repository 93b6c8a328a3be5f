"""The set encoder sees a set: no order, no padding, any number of members, none included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.nn import set_encoder
from celldit.nn.set_encoder import SetEncoder


def encoder(depth: int = 2, dropout: float = 0.0) -> SetEncoder:
    torch.manual_seed(0)
    return SetEncoder(
        9, 2, n_slots=3, width=8, depth=depth, n_heads=2, dropout=dropout
    ).eval()  # fmt: skip


def a_set(m: int, seed: int, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, m, 2, generator=draw), torch.randint(9, (n, m), generator=draw)


@given(st.integers(1, 12), st.integers(0, 1000))
def test_order_does_not_matter(m: int, seed: int) -> None:
    model, (values, identities) = encoder(), a_set(m, seed)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    slots = model(values, identities)
    assert slots.shape == (2, 3, 8)
    again = model(values[:, order], identities[:, order])
    torch.testing.assert_close(again, slots, rtol=0, atol=1e-5)


@given(st.integers(0, 6), st.integers(1, 6), st.integers(0, 1000))
def test_padding_does_not_matter(m: int, n_padding: int, seed: int) -> None:
    model, (values, identities) = encoder(), a_set(m + n_padding, seed)
    mask = torch.arange(m + n_padding).expand(2, -1) < m
    padded = model(values, identities, mask)
    assert torch.isfinite(padded).all()
    alone = model(values[:, :m], identities[:, :m], mask[:, :m])
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)
    weights = model.attention(values, identities, mask)
    assert (weights[:, :, m:] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.full((2, 3), float(m > 0)))


def test_an_empty_cell_does_not_disturb_its_batch() -> None:
    model, (values, identities) = encoder(), a_set(5, 0, n=3)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    slots = model(values, identities, mask)
    assert torch.isfinite(slots).all()
    full = model(values, identities)
    torch.testing.assert_close(slots[[0, 2]], full[[0, 2]], rtol=0, atol=1e-6)
    slots.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_values_and_identities_both_matter() -> None:
    model, (values, identities) = encoder(), a_set(6, 0)
    before = model(values, identities)
    assert (model(values + 1, identities) - before).abs().max() > 1e-3
    assert (model(values, (identities + 1) % 9) - before).abs().max() > 1e-3
    slots = before[0]
    assert torch.cdist(slots, slots).add(torch.eye(3)).min() > 1e-3


def test_some_cells_at_a_time_give_the_same_slots_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, (values, identities) = encoder(), a_set(6, 0, n=7)
    mask = torch.rand(7, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    found = []
    for at_once in (10_000, 12, 1):
        monkeypatch.setattr(set_encoder, "TOKENS_AT_ONCE", at_once)
        for given_mask in (mask, None):
            model.zero_grad()
            slots = model(values, identities, given_mask)
            (slots * torch.arange(8.0)).sum().backward()
            gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
            with torch.no_grad():
                torch.testing.assert_close(model(values, identities, given_mask), slots)
            found.append((slots.detach(), gradients))
    for i in (2, 4):
        for j in (0, 1):
            torch.testing.assert_close(found[i + j][0], found[j][0], rtol=0, atol=1e-6)
            for a, b in zip(found[i + j][1], found[j][1], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_memory_of_many_tokens_is_bounded() -> None:
    """What autograd keeps of a batch in parts is their input, not a score of arrays per token."""
    model = encoder()
    n_cells = 40
    values = torch.randn(n_cells, set_encoder.TOKENS_AT_ONCE // 8, 2)
    identities = torch.randint(9, values.shape[:2])
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model(values, identities)
    assert sum(kept.values()) < 2 * (values.nbytes + identities.nbytes)


def test_a_matrix_of_its_own_is_silent_at_first_and_then_acts_on_its_token_alone() -> None:
    shared, (values, identities) = encoder(), a_set(5, 0)
    torch.manual_seed(0)
    own = SetEncoder(
        9, 2, n_slots=3, width=8, depth=2, n_heads=2, dropout=0.0, per_token=True
    ).eval()  # fmt: skip
    own.load_state_dict(shared.state_dict(), strict=False)
    torch.testing.assert_close(own(values, identities), shared(values, identities))
    with torch.no_grad():
        assert own.own is not None
        own.own.weight[4] = 1.0
    changed = (own.tokens(values, identities) != shared.tokens(values, identities)).any(-1)
    torch.testing.assert_close(changed, identities == 4)


def test_a_token_with_a_matrix_of_its_own_is_the_same_packed() -> None:
    torch.manual_seed(0)
    model = SetEncoder(
        9, 2, n_slots=3, width=8, depth=2, n_heads=2, dropout=0.0, per_token=True
    ).eval()  # fmt: skip
    with torch.no_grad():
        assert model.own is not None
        model.own.weight.normal_()
    values, identities = a_set(5, 1)
    bounds = torch.tensor([0, 5, 10], dtype=torch.int32)
    packed = model.packed(values.flatten(0, 1), identities.flatten(), bounds, 5)
    torch.testing.assert_close(packed, model(values, identities), rtol=0, atol=1e-5)
