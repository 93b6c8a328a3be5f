from __future__ import annotations

import torch

from celldit.flow.source import GaussianSource


def test_gaussian_source_has_its_position_and_spread():
    noise = torch.randn(2000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.equal(GaussianSource()(noise), noise)
    x0 = GaussianSource(torch.tensor([1.0, 0.0, -1.0]), 0.5)(noise)
    torch.testing.assert_close(x0, torch.tensor([1.0, 0.0, -1.0]) + 0.5 * noise)
