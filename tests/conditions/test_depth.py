"""Controls and treated cells of different depth: the user is told both medians."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celldit import CellDiT
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.depth import FACTOR, unequal_depths, warn_unequal_depths


def cells(
    sizes: dict[Condition, float], n: int = 40, seed: int = 0
) -> tuple[ConditionTable, np.ndarray]:
    """Cells whose median library size is that of their condition."""
    rng = np.random.default_rng(seed)
    spread = np.concatenate([np.exp(rng.normal(0, 0.2, n // 2)), [1.0]])
    around = np.concatenate([spread, 1 / spread])
    index = np.repeat(np.arange(len(sizes)), len(around))
    return ConditionTable(tuple(sizes), index), np.concatenate([s * around for s in sizes.values()])


@given(st.floats(0.1, 10), st.integers(0, 100))
def test_told_from_the_factor_on(ratio: float, seed: int) -> None:
    sizes = {Condition(): 4000.0, Condition(("A",)): 4000.0 * ratio}
    apart = unequal_depths(*cells(sizes, seed=seed))
    assert bool(apart) == (max(ratio, 1 / ratio) >= FACTOR * (1 - 1e-12))
    for one in apart:
        assert one.controls == pytest.approx(4000)
        assert one.treated == pytest.approx(4000 * ratio)


def test_each_context_is_compared_with_its_own_controls() -> None:
    """Contexts may differ in depth as they like."""
    sizes = {Condition(p, None, c): n for c, n in (("x", 1e3), ("y", 1e4)) for p in ((), ("A",))}
    assert unequal_depths(*cells(sizes)) == []
    sizes[Condition(("A",), None, "y")] = 2e3
    sizes |= {Condition((), None, "z"): 1e3, Condition(("A",), None, "z"): 9e3}
    assert [one.stratum for one in unequal_depths(*cells(sizes))] == [("z", None), ("y", None)]


def test_medians_are_those_of_each_stratum_whatever_the_order_of_cells() -> None:
    rng = np.random.default_rng(0)
    conditions = [
        Condition(parts, None, where, time)
        for where in "zxy"
        for time in (1.0, 10.0, 2.0)
        for parts in (("B",), (), ("A",))
    ]
    index = rng.integers(0, len(conditions), 3_000)
    table, sizes = ConditionTable(tuple(conditions), index), rng.uniform(1, 2, 3_000)
    sizes *= np.where([c.is_control for c in conditions], 1.0, rng.uniform(2, 9, 27))[index]
    found = {one.stratum: one for one in unequal_depths(table, sizes)}
    of_cell = [conditions[i] for i in index]
    for key in {c.stratum for c in conditions}:
        for kind, name in ((True, "controls"), (False, "treated")):
            own = [c.stratum == key and c.is_control == kind for c in of_cell]
            median = np.median(sizes[own])
            assert key not in found or getattr(found[key], name) == median
    assert len(found) == 9


def test_a_few_cells_are_no_median() -> None:
    sizes = {Condition(): 1000.0, Condition(("A",)): 9000.0}
    assert unequal_depths(*cells(sizes, n=16)) == []


def test_both_numbers_are_said() -> None:
    table, sizes = cells({Condition((), None, "x"): 1000.0, Condition(("A",), None, "x"): 5000.0})
    with pytest.warns(UserWarning, match=r"x: 1000 in controls, 5000 in treated cells.*downsample"):
        warn_unequal_depths(table, sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unequal_depths(table, np.ones(len(sizes)))


def test_training_says_so(simulate_screen, train_tiny) -> None:
    adata = simulate_screen()
    adata.obs["umis"] = np.where(adata.obs["perturbation"] == "control", 3000.0, 1000.0)
    fields = {"covariate_keys": ["donor"], "size_factor_key": "umis"}
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control", **fields)
    with pytest.warns(UserWarning, match=r"d1: 3000 in controls, 1000 in treated cells; d2: "):
        train_tiny(adata, max_epochs=0)
