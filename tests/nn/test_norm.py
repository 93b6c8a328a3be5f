"""Norm, dropout and projections are what torch's own compute."""

import pytest
import torch

from celldit.nn.layers import Dropout, RMSNorm, kept


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(share):
    torch.manual_seed(0)
    mask = kept(torch.empty(1001, 999), share)
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - share)], rel=1e-4)
    assert (mask == 0).float().mean().item() == pytest.approx(share, abs=2e-3)
    assert mask.mean().item() == pytest.approx(1, abs=0.01)
    # Elements that share a random integer are dropped independently of each other.
    quartets = (mask.flatten()[: 4 * 249_000].view(-1, 4) == 0).double()
    together = torch.corrcoef(quartets.T) - torch.eye(4)
    assert together.abs().max() < 0.01


def test_dropout_follows_the_seed_and_rests_in_evaluation():
    layer, x = Dropout(0.5), torch.randn(64, 5)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(layer(x))
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], x)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(1.0)(x), torch.zeros_like(x))


def test_a_norm_stays_in_half_precision_under_autocast():
    norm, x = RMSNorm(16), torch.randn(3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), norm(x), rtol=2e-2, atol=2e-2)
