"""The DiT is silent until trained, and every part of its input matters afterwards."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from celldit.errors import InputError, UnknownNameError
from celldit.nn.dit import DiT, DiTBlock, DiTConfig
from celldit.nn.layers import sinusoid

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


def test_options_that_left_are_refused() -> None:
    with pytest.raises(InputError, match=r"context_embedding= is no option any more\. A context"):
        DiTConfig(context_embedding=True)  # type: ignore[call-arg]
    with pytest.raises(UnknownNameError, match="views"):
        DiTConfig(tokens="view")  # type: ignore[arg-type]
