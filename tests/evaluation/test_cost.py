"""What networks cost, as the benchmarks count it (``notebooks/benchmarks/cost.py``)."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from celldit.flow.anchored import AnchoredFlow
from celldit.nn.dit import SIZES, DiTConfig
from celldit.nn.views import TokenViews

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks" / "benchmarks"))
from cost import cost_of


def test_views_cost_what_their_tokens_do() -> None:
    few, many = (cost_of(DiTConfig(n_views=n)) for n in (10, 40))
    assert 3.5 < many.flops / few.flops < 5
    slices = cost_of(DiTConfig(tokens="latent"), n_tokens=10, token_dim=3)
    assert few.flops / slices.flops == pytest.approx(1, abs=0.2)


def test_each_size_costs_more_than_the_one_before() -> None:
    costs = [cost_of(config) for config in SIZES.values()]
    for small, large in itertools.pairwise(costs):
        assert large.parameters > 3 * small.parameters
        assert large.flops > 3 * small.flops


@pytest.mark.parametrize(("n_tokens", "token_dim"), [(6, 8), (16, 4)])
def test_parameters_are_those_of_the_network(n_tokens: int, token_dim: int) -> None:
    config = SIZES["celldit-S"]
    views = TokenViews.random(config.n_views, n_tokens * token_dim, config.view_values, 0)
    flow = AnchoredFlow(n_tokens, token_dim, config, views=views)
    n_parameters = sum(p.numel() for p in flow.parameters())
    assert cost_of(SIZES["celldit-S"], n_tokens, token_dim).parameters == n_parameters


def test_operations_are_those_of_the_linear_layers_and_attention() -> None:
    config, n_tokens = DiTConfig(width=32, depth=2, n_heads=4, tokens="latent"), 5
    flow = AnchoredFlow(n_tokens, 3, config)
    total = 0
    for name, layer in flow.named_modules():
        if isinstance(layer, nn.Linear):
            per_token = "attention" in name or "mlp" in name
            total += 2 * layer.weight.numel() * (n_tokens if per_token else 1)
    total += 2 * (flow.dit.project_in.weight.numel() + flow.dit.project_out.weight.numel())
    total += config.depth * 2 * 2 * n_tokens * n_tokens * config.width
    assert cost_of(config, n_tokens, 3).flops == total


def size_table() -> str:
    """All sizes as a table in Markdown."""
    rows = [
        "| size | width | depth | heads | parameters | FLOPs per cell and velocity |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, config in SIZES.items():
        cost = cost_of(config)
        rows.append(
            f"| `{name}` | {config.width} | {config.depth} | {config.n_heads} | "
            f"{cost.parameters / 1e6:,.1f} million | {cost.flops / 1e6:,.1f} million |"
        )
    return "\n".join(rows)


def test_the_documented_table_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    shown = re.search(r"<!-- sizes:begin -->\n(.*)\n<!-- sizes:end -->", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == size_table()


def test_the_largest_is_made_without_memory() -> None:
    assert cost_of(SIZES["celldit-XL"]).parameters > 3e8
    assert torch.get_default_device() == torch.device("cpu")
