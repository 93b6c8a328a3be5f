"""The velocity of deviations from a mean course."""

from __future__ import annotations

import torch

from celldit.flow.time import TimeFlow


def flow_of(known: bool = True) -> TimeFlow:
    torch.manual_seed(0)
    flow = TimeFlow(3, 2, 8)
    torch.nn.init.normal_(flow.net[-1].weight, std=0.3)
    flow.known[1] = float(known)
    return flow


def moved(flow: TimeFlow, y: torch.Tensor, start: float, end: float) -> torch.Tensor:
    n = len(y)
    ends = torch.full((n,), start), torch.full((n,), end)
    return flow.move(y, *ends, torch.ones(n, dtype=torch.int64))


def test_an_untrained_network_moves_nothing() -> None:
    flow, y = TimeFlow(3, 2, 8), torch.randn(5, 3)
    flow.known[1] = 1
    assert torch.equal(moved(flow, y, 0.0, 1.0), y)


def test_there_and_back_is_where_it_began() -> None:
    flow, y = flow_of(), torch.randn(20, 3)
    there = moved(flow, y, 0.2, 0.8)
    assert (there - y).abs().max() > 0.01
    torch.testing.assert_close(moved(flow, there, 0.8, 0.2), y, atol=1e-3, rtol=0)


def test_two_steps_are_one() -> None:
    flow, y = flow_of(), torch.randn(20, 3)
    half = moved(flow, moved(flow, y, 0.0, 0.5), 0.5, 1.0)
    torch.testing.assert_close(half, moved(flow, y, 0.0, 1.0), atol=1e-3, rtol=0)


def test_contexts_that_were_not_seen_and_equal_times_stay() -> None:
    y = torch.randn(20, 3)
    assert torch.equal(moved(flow_of(known=False), y, 0.0, 1.0), y)
    assert torch.equal(moved(flow_of(), y, 0.5, 0.5), y)
