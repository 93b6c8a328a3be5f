from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import InputError, UnknownNameError
from celldit.flow.coupling import (
    COUPLINGS,
    EntropicCoupling,
    IndependentCoupling,
    OptimalTransportCoupling,
    UnbalancedCoupling,
    pairing_cost,
    resolve_coupling,
)

EVEN = [IndependentCoupling(), OptimalTransportCoupling()]
EVERY = [make() for make in COUPLINGS.values()]
number = st.integers(1, 40)
some_seed = st.integers(0, 2**20)


def points(n, seed, shape=(3,)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def cost(source, target, index):
    if isinstance(index, tuple):
        index, order = index
        target = target[order]
    return float((source[index] - target).double().square().sum())


@given(coupling=st.sampled_from(EVEN), n=number, m=number, seed=some_seed)
@settings(deadline=None, max_examples=40)
def test_every_target_has_a_source_and_sources_are_used_evenly(coupling, n, m, seed):
    index, target = coupling(points(n, seed), points(m, seed + 1), seeded(seed))
    assert torch.equal(target, torch.arange(m))
    assert index.shape == (m,)
    assert index.dtype == torch.int64
    uses = torch.bincount(index, minlength=n)
    assert len(uses) == n
    assert int(uses.max() - uses.min()) <= 1


@given(n=number, m=number, seed=some_seed)
@settings(deadline=None, max_examples=40)
def test_optimal_transport_never_costs_more_than_independence(n, m, seed):
    source, target = points(n, seed, (2, 3)), points(m, seed + 1, (2, 3))
    optimal = OptimalTransportCoupling()(source, target, seeded(seed))
    independent = IndependentCoupling()(source, target, seeded(seed))
    assert cost(source, target, optimal) <= cost(source, target, independent) + 1e-9


@given(n=st.integers(1, 6), seed=some_seed)
@settings(deadline=None, max_examples=20)
def test_optimal_transport_is_the_best_of_all_permutations(n, seed):
    source, target = points(n, seed), points(n, seed + 1)
    found = cost(source, target, OptimalTransportCoupling()(source, target, seeded(0)))
    best = min(cost(source, target, list(p)) for p in itertools.permutations(range(n)))
    assert found == pytest.approx(best)


def test_optimal_transport_agrees_with_pot():
    ot = pytest.importorskip("ot")
    source, target = points(60, 0), points(60, 1) + 1
    index = OptimalTransportCoupling()(source, target)
    weights = np.full(60, 1 / 60)
    assert cost(source, target, index) / 60 == pytest.approx(
        ot.emd2(weights, weights, pairing_cost(source, target).numpy())
    )


def test_cost_keeps_its_digits_far_from_the_origin():
    source, target = points(8, 0).double(), points(9, 1).double()
    near = pairing_cost(source, target)
    torch.testing.assert_close(near, torch.cdist(source, target).square())
    torch.testing.assert_close(pairing_cost(source + 1e6, target + 1e6), near, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("coupling", EVERY)
def test_the_same_generator_gives_the_same_pairs(coupling):
    one, two = (coupling(points(20, 0), points(15, 1), seeded(3)) for _ in range(2))
    assert torch.equal(one.source_M, two.source_M)
    assert torch.equal(one.target_M, two.target_M)
    assert len(one.source_M) == len(one.target_M) == 15


def test_entropy_fades_from_exact_to_independent():
    source, target = points(40, 0), points(40, 0)[torch.randperm(40, generator=seeded(5))]
    costs = [
        np.mean(
            [cost(source, target, EntropicCoupling(e)(source, target, seeded(s))) for s in range(5)]
        )
        for e in (0.005, 0.1, 100.0)
    ]
    assert costs[0] < 0.05 * costs[2]
    assert costs[0] < costs[1] < costs[2]
    independent = np.mean(
        [cost(source, target, IndependentCoupling()(source, target, seeded(s))) for s in range(5)]
    )
    assert costs[2] == pytest.approx(independent, rel=0.15)


def test_what_has_no_counterpart_is_left_out_where_mass_may_differ():
    """A third of the targets are of a kind that no source is; few pairs go there."""
    source = points(60, 0)
    target = torch.cat([points(40, 1), points(20, 2) + 12])
    coupling = UnbalancedCoupling(mass=0.05)
    far = np.mean(
        [
            float((coupling(source, target, seeded(s)).target_M >= 40).float().mean())
            for s in range(5)
        ]
    )
    assert far < 0.1
    balanced = UnbalancedCoupling(mass=50.0)(source, target, seeded(0)).target_M
    assert float((balanced >= 40).float().mean()) == pytest.approx(1 / 3, abs=0.15)


def test_independent_pairs_do_not_depend_on_where_the_points_are():
    source, target = torch.arange(500.0)[:, None], torch.arange(500.0)[:, None]
    index, _ = IndependentCoupling()(source, target, seeded(0))
    assert abs(np.corrcoef(index, np.arange(500))[0, 1]) < 0.2
    assert torch.equal(OptimalTransportCoupling()(source, target).source_M, torch.arange(500))


@pytest.mark.parametrize("coupling", EVERY)
def test_points_that_are_not_finite_are_refused(coupling):
    if isinstance(coupling, IndependentCoupling):
        return
    with pytest.raises(InputError, match="finite"):
        coupling(points(3, 0) * float("nan"), points(3, 0))


def test_couplings_are_found_by_name():
    assert resolve_coupling("ot") == OptimalTransportCoupling()
    with pytest.raises(UnknownNameError, match="independent"):
        resolve_coupling("random")
