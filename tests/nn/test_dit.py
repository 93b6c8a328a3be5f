"""The DiT is silent until trained, and every part of its input matters afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.errors import InputError, UnknownNameError
from celldit.nn.dit import DiT, DiTBlock, DiTConfig
from celldit.nn.embeddings import sinusoid

SMALL = DiTConfig(width=16, depth=2, n_heads=2, dropout=0.1)


def inputs(n: int = 3, n_tokens: int = 4, scale: float = 1.0, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x, own = (scale * torch.randn(n, n_tokens, d, generator=draw) for d in (2, 5))
    return [x, torch.rand(n, generator=draw), own, scale * torch.randn(n, 3, generator=draw)]


def dit(n_tokens: int = 4, *, awake: bool = False) -> DiT:
    torch.manual_seed(0)
    model = DiT(n_tokens, 2, 5, 3, SMALL)
    if awake:
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


@given(st.integers(1, 5), st.floats(0.01, 1e4), st.integers(0, 1000), st.booleans())
def test_untrained_is_exactly_zero(n_tokens: int, scale: float, seed: int, train: bool) -> None:
    model = dit(n_tokens).train(train)
    velocity = model(*inputs(3, n_tokens, scale, seed))
    assert velocity.shape == (3, n_tokens, 2)
    assert (velocity == 0).all()


def test_a_new_block_is_the_identity() -> None:
    block, x = DiTBlock(SMALL), torch.randn(2, 3, 16)
    assert torch.equal(block(x, torch.randn(2, 16)), x)


def test_training_can_leave_zero() -> None:
    model = dit()
    (model(*inputs()) - 1).square().mean().backward()
    assert model.project_out.weight.grad.abs().max() > 0
    assert model.project_out.bias.grad.abs().max() > 0


@pytest.mark.parametrize("which", range(4), ids=["x", "t", "token features", "features"])
def test_every_input_matters(which: int) -> None:
    model, given_inputs = dit(awake=True), inputs()
    before = model(*given_inputs)
    given_inputs[which] = given_inputs[which] + 0.3
    assert (model(*given_inputs) - before).abs().max() > 1e-4


def test_cells_of_a_batch_do_not_see_each_other() -> None:
    model, whole = dit(awake=True), inputs(6)
    parts = [model(*(tensor[i : i + 1] for tensor in whole)) for i in range(6)]
    torch.testing.assert_close(model(*whole), torch.cat(parts), rtol=1e-4, atol=1e-5)


def test_tokens_see_each_other() -> None:
    model, given_inputs = dit(awake=True), inputs()
    before = model(*given_inputs)
    given_inputs[0] = given_inputs[0].clone()
    given_inputs[0][:, 0] += 1
    assert (model(*given_inputs) - before)[:, 1:].abs().max() > 1e-4


def test_tokens_have_identities() -> None:
    """Swapping two tokens does not swap their velocities: each has projections of its own."""
    model, (x, t, own, features) = dit(awake=True), inputs()
    order = torch.tensor([1, 0, 2, 3])
    swapped = model(x[:, order], t, own[:, order], features)
    assert (swapped[:, order] - model(x, t, own, features)).abs().max() > 1e-3


def test_sinusoid_tells_times_apart() -> None:
    times = torch.linspace(0, 1, 101)
    features = sinusoid(times, 16)
    assert features.shape == (101, 16)
    apart = torch.cdist(features, features) + 10 * torch.eye(101)
    assert apart.min() > 0.05
    torch.testing.assert_close(features[0], torch.tensor([1.0] * 8 + [0.0] * 8))


# --- conditioning paths -------------------------------------------------------------------------

PATHS = ("adaln", "tokens", "both")


def parts(n: int = 3, n_parts: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of parts, the last of which is padding."""
    tokens = torch.randn(n, n_parts, 7, generator=torch.Generator().manual_seed(seed))
    return tokens, torch.arange(n_parts).expand(n, -1) < n_parts - 1


def told_dit(conditioning: str, *, awake: bool = True, context: bool = False) -> DiT:
    torch.manual_seed(0)
    config = replace(SMALL, conditioning=conditioning, context_embedding=context)
    model = DiT(4, 2, 5, 3, config, n_part_features=7, n_contexts=2)
    if awake:
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


@pytest.mark.parametrize("conditioning", PATHS)
@pytest.mark.parametrize("train", [True, False])
def test_untrained_is_zero_on_every_path(conditioning: str, train: bool) -> None:
    model = told_dit(conditioning, awake=False, context=True).train(train)
    assert (model(*inputs(), *parts(), torch.tensor([0, 1, 2])) == 0).all()
    for block in model.blocks:
        x, members = torch.randn(3, 4, 16), torch.randn(3, 3, 16)
        assert torch.equal(block(x, torch.randn(3, 16), members), x)


@pytest.mark.parametrize("conditioning", ["tokens", "both"])
def test_order_of_parts_and_padding_do_not_matter(conditioning: str) -> None:
    model, (tokens, is_part) = told_dit(conditioning), parts(n_parts=4)
    before = model(*inputs(), tokens, is_part)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = model(*inputs(), tokens[:, order], is_part[:, order])
    torch.testing.assert_close(shuffled, before, rtol=1e-5, atol=1e-6)
    filled = torch.where(is_part[..., None], tokens, torch.full_like(tokens, 9.0))
    torch.testing.assert_close(model(*inputs(), filled, is_part), before, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(*inputs(), tokens[:, :3], is_part[:, :3]), before)


@pytest.mark.parametrize("conditioning", PATHS)
def test_what_each_path_reads(conditioning: str) -> None:
    model, (tokens, is_part) = told_dit(conditioning), parts()
    before = model(*inputs(), tokens, is_part)
    by_parts = (model(*inputs(), tokens + 0.5, is_part) - before).abs().max()
    assert (by_parts > 1e-4) == (conditioning != "adaln")
    other = inputs()
    other[3] = other[3] + 0.5
    assert (model(*other, tokens, is_part) - before).abs().max() > 1e-4


def test_a_condition_without_parts_is_finite() -> None:
    tokens, is_part = parts()
    velocity = told_dit("tokens")(*inputs(), tokens, torch.zeros_like(is_part))
    assert torch.isfinite(velocity).all()


def test_a_network_that_reads_parts_asks_for_them() -> None:
    with pytest.raises(ValueError, match="needs the condition's parts"):
        told_dit("tokens")(*inputs())


def test_contexts_are_off_unless_asked_for() -> None:
    assert not DiTConfig().context_embedding
    which = torch.tensor([1, 2, 1])
    off, on = (told_dit("adaln", context=c) for c in (False, True))
    assert torch.equal(off(*inputs(), context_B=which), off(*inputs()))
    assert (on(*inputs(), context_B=which) - on(*inputs())).abs().max() > 1e-4


def test_contexts_are_dropped_while_training() -> None:
    model = told_dit("adaln", context=True)
    which = torch.full((400,), 2)
    assert torch.equal(model._dropped(which), which)
    torch.manual_seed(0)
    share = (model.train()._dropped(which) == 0).float().mean()
    assert 0.4 < share < 0.6


def test_configurations_that_cannot_be_used() -> None:
    with pytest.raises(UnknownNameError, match="adaln"):
        DiTConfig(conditioning="adalm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="context_dropout"):
        DiTConfig(context_dropout=1.5)
