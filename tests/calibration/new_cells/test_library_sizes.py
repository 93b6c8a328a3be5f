"""Library sizes of new cells: those of their state, and what was done to them."""

from __future__ import annotations

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit import CellDiT
from celldit.calibration.new_cells.library_sizes import SizeModel
from celldit.conditions import Condition, ConditionTable

N_GENES, N_CELLS = 40, 150
HOURS = (2.0, 6.0)
CHANGED = slice(20, 28)
MORE = 4.0


def rates() -> dict[tuple[str, float], np.ndarray]:
    """Expected counts of a cell of average size, by perturbation and time."""
    base_G = np.random.default_rng(0).gamma(2, 2, N_GENES) + 1.0
    found = {}
    for hours in HOURS:
        for label in ("control", "X"):
            rate_G = base_G.copy()
            rate_G[:10] *= 3.0 ** ((hours - 2) / 6)
            rate_G[CHANGED] *= MORE if label == "X" else 1.0
            found[label, hours] = rate_G
    return found


@pytest.fixture(scope="module")
def panel(train_tiny) -> CellDiT:
    """A panel of 40 genes, whose total is the library: X makes a fifth of them fourfold."""
    rng = np.random.default_rng(1)
    counts, obs = [], []
    for (label, hours), rate_G in rates().items():
        cell_NG = np.exp(0.2 * rng.normal(size=(N_CELLS, 2)) @ rng.normal(size=(2, N_GENES)))
        counts.append(rng.poisson(rate_G * cell_NG))
        obs += [(label, hours)] * N_CELLS
    adata = ad.AnnData(
        sparse.csr_matrix(np.concatenate(counts).astype(np.float32)),
        obs=pd.DataFrame(obs, columns=["perturbation", "hours"]).rename(index="c{}".format),
    )
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", time_key="hours")
    return train_tiny(adata, max_epochs=1)


@pytest.mark.parametrize("hours", HOURS)
def test_new_cells_of_a_panel_change_by_all_of_an_effect(panel: CellDiT, hours: float) -> None:
    made = {
        label: panel.generate(2048, perturbation=label, time=hours).layers["counts"].toarray()
        for label in ("control", "X")
    }
    true = {label: rates()[label, hours] for label in made}
    # In counts, and in shares of the library.
    for of_cell, of_rate in (
        (lambda counts: counts, lambda rate: rate),
        (lambda counts: counts / counts.sum(1, keepdims=True), lambda rate: rate / rate.sum()),
    ):
        change = np.log(of_cell(made["X"]).mean(0) / of_cell(made["control"]).mean(0))
        truth = np.log(of_rate(true["X"]) / of_rate(true["control"]))
        assert (change @ truth) / (truth @ truth) == pytest.approx(1, abs=0.1)


def of_contexts(size_N: np.ndarray, row_N: np.ndarray, n_states: int) -> SizeModel:
    """Sizes of controls, a context for each state."""
    table = ConditionTable(tuple(Condition(context=str(x)) for x in range(n_states)), row_N)
    return SizeModel.fit(size_N, row_N, n_states, table)


def test_sizes_follow_their_context() -> None:
    rng = np.random.default_rng(0)
    row_N = np.repeat([0, 1], 2000)
    size_N = np.exp(rng.normal(np.where(row_N == 0, 7.0, 9.0), 0.3)).astype(np.float32)
    sizes = of_contexts(size_N, row_N, 2)
    uniform, still = rng.random(2000), np.zeros(2000)
    for row, mean in ((0, 7.0), (1, 9.0)):
        drawn = np.log(sizes(np.full(2000, row), still, uniform))
        assert drawn.mean() == pytest.approx(mean, abs=0.05)
        assert drawn.std() == pytest.approx(0.3, abs=0.05)
    likelier = sizes.log_densities(np.exp(np.array([7.0, 9.0])), still[:2]).argmax(1)
    assert list(likelier) == [0, 1]
    # A shift moves what is expected along.
    likelier = sizes.log_densities(np.exp(np.array([9.0])), np.array([2.0])).argmax(1)
    assert list(likelier) == [0]


def test_one_cell_of_a_context_gives_sizes() -> None:
    sizes = of_contexts(np.array([100.0, 100.0, 300.0]), np.array([0, 0, 1]), 3)
    drawn = sizes(np.array([0, 1, 2]), np.zeros(3), np.array([0.0, 0.5, 1.0]))
    assert np.isfinite(drawn).all()


def screen(shift: dict[str, float], n_cells: int, rng: np.random.Generator) -> tuple:
    """Sizes, states and conditions of controls and perturbed cells in two contexts."""
    conditions = [Condition((name,) if name else (), None, where)
                  for where in "xy" for name in ["", *shift]]  # fmt: skip
    index = np.repeat(np.arange(len(conditions)), n_cells)
    state_N = index // (len(shift) + 1)
    mean_C = np.array([7 + (c.context == "y") + sum(shift[p] for p in c.parts) for c in conditions])
    size_N = np.exp(rng.normal(mean_C[index], 0.3))
    return size_N, state_N, 2, ConditionTable(tuple(conditions), index)


def test_what_perturbations_do_to_sizes_is_found_and_added_up() -> None:
    true = {"A": 0.5, "B": -0.3, "C": 0.0}
    sizes = SizeModel.fit(*screen(true, 400, np.random.default_rng(2)))
    for where in "xy":
        asked = [Condition((name,), None, where) for name in true]
        assert sizes.shifts(asked) == pytest.approx(list(true.values()), abs=0.06)
    unseen = [Condition(("A", "B"), None, "x"), Condition(("A",), None, "z"), Condition(("D",))]
    assert sizes.shifts(unseen) == pytest.approx([0.2, 0.5, 0.0], abs=0.06)
    # Each context has a state to itself, so that nothing of its controls is left.
    assert sizes.shifts([Condition(), Condition(context="y")]) == pytest.approx(0, abs=1e-3)
    # States are those of controls.
    assert sizes.mean_S == pytest.approx([7, 8], abs=0.05)


def test_controls_of_contexts_that_share_a_state_have_sizes_of_their_own() -> None:
    size_N, state_N, _, table = screen({"A": 0.5, "B": -0.3}, 400, np.random.default_rng(6))
    sizes = SizeModel.fit(size_N, np.zeros_like(state_N), 1, table)

    def log_size(*asked: Condition) -> np.ndarray:
        return sizes.mean_S[0] + sizes.shifts(asked)

    x, y = Condition(context="x"), Condition(context="y")
    assert log_size(x, y) == pytest.approx([7, 8], abs=0.06)
    assert log_size(Condition(("A",), None, "y")) == pytest.approx([8.5], abs=0.06)
    # A combination starts at the controls of its own context.
    assert log_size(Condition(("A", "B"), None, "y")) == pytest.approx([8.2], abs=0.1)


def test_controls_of_data_with_doses_have_sizes_of_their_own() -> None:
    size_N, state_N, _, table = screen({"A": 0.5, "B": -0.3}, 400, np.random.default_rng(6))
    at_one = tuple(replace(c, doses=(1.0,) * len(c.parts)) for c in table.conditions)
    dosed = SizeModel.fit(size_N, 0 * state_N, 1, ConditionTable(at_one, table.index))
    # Another dose starts at the controls of its own context.
    higher = Condition(("A",), (3.0,), "y")
    assert dosed.mean_S[0] + dosed.shifts([higher]) == pytest.approx([8.5], abs=0.06)


def test_sampling_noise_is_not_taken_for_a_shift() -> None:
    rng = np.random.default_rng(3)
    none = {f"p{i}": 0.0 for i in range(30)}
    size_N, *where = screen(none, 12, rng)
    found = np.array(list(SizeModel.fit(size_N, *where).shift.values()))
    raw = np.log(size_N).reshape(-1, 12).mean(1)
    noise = raw - raw.reshape(2, -1).mean(1).repeat(31)
    assert np.square(found).mean() < 0.3 * np.square(noise).mean()


def test_sizes_survive_their_arrays_and_an_earlier_training() -> None:
    sizes = SizeModel.fit(*screen({"A": 0.5}, 100, np.random.default_rng(4)))
    again = SizeModel.from_config(json.loads(json.dumps(sizes.to_config())), sizes.arrays())
    asked = [Condition(("A",), None, "x"), Condition(("A",), None, "new")]
    assert np.array_equal(again.shifts(asked), sizes.shifts(asked))
    # Models of earlier versions know of no shifts.
    assert not SizeModel.from_config({}, sizes.arrays()).shifts(asked).any()
    later = SizeModel.fit(*screen({"B": -0.4}, 100, np.random.default_rng(5)))
    both = later.with_earlier(sizes, np.array([1]))
    assert len(both.mean_S) == 3
    assert both.shifts([Condition(("A",), None, "x"), Condition(("B",), None, "x")]) == (
        pytest.approx([0.5, -0.4], abs=0.1)
    )
