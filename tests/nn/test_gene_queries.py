"""Gene queries are silent at first; afterwards genes read tokens independently."""

from __future__ import annotations

import pytest
import torch

from celldit.nn.gene_queries import GeneQueries


def queries(n_genes: int = 7, *, awake: bool = True) -> GeneQueries:
    torch.manual_seed(0)
    model = GeneQueries(3, 4, n_genes, width=8, n_heads=2, dropout=0.1).eval()
    if awake:
        torch.nn.init.normal_(model.read)
    return model


def test_silent_until_trained_but_learning() -> None:
    model, z = queries(awake=False), torch.randn(5, 3, 4)
    assert (model(z) == 0).all()
    (model(z) - 1).square().mean().backward()
    assert model.read.grad.abs().max() > 0


def test_genes_do_not_see_each_other() -> None:
    model, z = queries(), torch.randn(5, 3, 4)
    few = queries(n_genes=7)
    some = torch.tensor([4, 1])
    few.queries = torch.nn.Parameter(model.queries[:, some].detach())
    few.read = torch.nn.Parameter(model.read[:, some].detach())
    torch.testing.assert_close(few(z), model(z)[:, some])


def test_it_is_not_linear() -> None:
    model, z = queries(), torch.randn(5, 3, 4)
    assert (model(2 * z) - 2 * model(z)).abs().max() > 1e-2


def test_rescaled_tokens_decode_the_same() -> None:
    model, z = queries(), torch.randn(5, 3, 4)
    before, scale = model(z), torch.tensor([0.5, 1.0, 3.0])
    model.rescale(scale)
    torch.testing.assert_close(model(z / scale[:, None]), before, rtol=1e-4, atol=1e-5)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        GeneQueries(3, 4, 5, width=9, n_heads=2, dropout=0.0)
