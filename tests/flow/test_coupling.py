from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import InputError, UnknownNameError
from celldit.flow.coupling import (
    IndependentCoupling,
    OptimalTransportCoupling,
    pair_within_strata,
    pairing_cost,
    resolve_coupling,
)

COUPLINGS = [IndependentCoupling(), OptimalTransportCoupling()]
number = st.integers(1, 40)
some_seed = st.integers(0, 2**20)


def points(n, seed, shape=(3,)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def cost(source, target, index):
    return float((source[index] - target).double().square().sum())


@given(coupling=st.sampled_from(COUPLINGS), n=number, m=number, seed=some_seed)
@settings(deadline=None, max_examples=40)
def test_every_target_has_a_source_and_sources_are_used_evenly(coupling, n, m, seed):
    index = coupling(points(n, seed), points(m, seed + 1), seeded(seed))
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


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_pairs_stay_within_their_stratum(coupling):
    source_strata = np.array(["a", "b", "a", "c", "b", "a"])
    target_strata = np.array(["b", "a", "b", "b", "a"])
    index = pair_within_strata(
        coupling, points(6, 0), points(5, 1), source_strata, target_strata, seeded(0)
    )
    assert list(source_strata[index.numpy()]) == list(target_strata)
    again = pair_within_strata(
        coupling, points(6, 0), points(5, 1), source_strata, target_strata, seeded(0)
    )
    assert torch.equal(index, again)


def test_independent_pairs_do_not_depend_on_where_the_points_are():
    source, target = torch.arange(500.0)[:, None], torch.arange(500.0)[:, None]
    index = IndependentCoupling()(source, target, seeded(0))
    assert abs(np.corrcoef(index, np.arange(500))[0, 1]) < 0.2
    assert torch.equal(OptimalTransportCoupling()(source, target), torch.arange(500))


def test_bad_input_is_refused():
    optimal = OptimalTransportCoupling()
    for coupling in COUPLINGS:
        assert coupling(points(3, 0), points(3, 0)[:0]).shape == (0,)
        with pytest.raises(InputError, match="no source"):
            coupling(points(3, 0)[:0], points(3, 0))
    with pytest.raises(InputError, match="one space"):
        optimal(points(3, 0), points(3, 0, (4,)))
    with pytest.raises(InputError, match="finite"):
        optimal(points(3, 0) * float("nan"), points(3, 0))
    with pytest.raises(InputError, match="such as 'rep2'"):
        pair_within_strata(optimal, points(2, 0), points(2, 0), ["rep1"] * 2, ["rep1", "rep2"])
    with pytest.raises(InputError, match="one stratum per point"):
        pair_within_strata(optimal, points(2, 0), points(2, 0), ["rep1"], ["rep1", "rep1"])


def test_couplings_are_found_by_name():
    assert resolve_coupling("ot") == OptimalTransportCoupling()
    with pytest.raises(UnknownNameError, match="independent"):
        resolve_coupling("random")
