"""Counts of new cells take the distribution of measured ones, and keep their order."""

from __future__ import annotations

import copy
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest

from celldit import CellDiT
from celldit.samplers.margins import CELLS_PER_GROUP, MAX_GROUPS, CellMargins, Margins


def on_and_off(rng: np.random.Generator, size_N: np.ndarray) -> np.ndarray:
    """A gene that is off in half of the cells, on in the others; and one that small cells have."""
    on_N = rng.random(len(size_N)) < 0.5
    rate_N2 = np.stack([8 * on_N + 0.05, 3 * (size_N < np.median(size_N)) + 0.5], axis=1)
    return rng.poisson(rate_N2 * (size_N / 1e4)[:, None])


def alike(rng: np.random.Generator, size_N: np.ndarray) -> np.ndarray:
    """Two genes of the same means that do the same in all cells."""
    rate_N2 = np.array([4.0, 2.0]) * rng.gamma(1.5, 1 / 1.5, (len(size_N), 2))
    return rng.poisson(rate_N2 * (size_N / 1e4)[:, None])


def sizes(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.exp(rng.normal(9.2, 0.5, n))


@pytest.fixture
def margins() -> Margins:
    rng = np.random.default_rng(0)
    size_N, size_M = sizes(rng, 16_000), sizes(rng, 32_000)
    return Margins.of(on_and_off(rng, size_N), size_N, alike(rng, size_M), size_M, 1)


def moved(margins: Margins, counts: np.ndarray, size: np.ndarray, seed: int = 1) -> np.ndarray:
    group = margins.groups(size, np.zeros(len(size), dtype=np.int64))
    return margins.moved(counts, group, np.random.default_rng(seed).random(counts.shape))


def test_drawn_counts_get_the_distribution_of_measured_ones_at_each_size(margins: Margins) -> None:
    rng = np.random.default_rng(2)
    size = sizes(rng, 20_000)
    drawn, truth = alike(rng, size), on_and_off(rng, size)
    found = moved(margins, drawn, size)
    small = size < np.median(size)
    for cells in (small, ~small):
        for most in range(12):
            share = (found[cells] <= most).mean(0)
            np.testing.assert_allclose(share, (truth[cells] <= most).mean(0), atol=0.05)
    # Which the drawn counts had not.
    assert abs((drawn == 0).mean(0) - (truth == 0).mean(0)).max() > 0.1


def test_counts_of_the_same_distribution_stay() -> None:
    rng = np.random.default_rng(3)
    size = sizes(rng, 3_000)
    counts = alike(rng, size)
    same = Margins.of(counts, size, counts, size, 1)
    np.testing.assert_array_equal(moved(same, counts, size), counts)


def test_the_order_of_counts_stays(margins: Margins) -> None:
    counts = np.repeat(np.arange(25)[:, None], 2, axis=1)
    # One size and one rank within each count: nothing but the count differs.
    group = margins.groups(np.full(25, 1e4), np.zeros(25, dtype=np.int64))
    for uniform in (0.0, 0.4, 0.999):
        found = margins.moved(counts, group, np.full(counts.shape, uniform))
        assert (np.diff(found, axis=0)[:10] >= 0).all()


def test_what_training_did_not_see_stays(margins: Margins) -> None:
    rng = np.random.default_rng(4)
    size = sizes(rng, 500)
    # A gene that a perturbation takes beyond all counts that were drawn before.
    counts = np.full((500, 2), 5_000)
    np.testing.assert_array_equal(moved(margins, counts, size), counts)
    few = alike(rng, size)
    for factor in (1e-3, 1e3):  # libraries of another kind
        np.testing.assert_array_equal(moved(margins, few, factor * size), few)
    later = np.ones(500, dtype=np.int64)  # a state that was not measured
    assert (margins.groups(size, later) == -1).all()
    np.testing.assert_array_equal(moved(Margins.none(), few, size), few)


def test_few_measured_cells_say_little() -> None:
    rng = np.random.default_rng(5)
    size = np.full(5_000, 1e4)
    drawn = alike(rng, size)
    few = Margins.of(np.full((3, 2), 15), size[:3], drawn, size, 1)
    # Three cells against the 25 that the drawn ones count as.
    more = (moved(few, drawn, size) >= 15).mean() - (drawn >= 15).mean()
    assert more == pytest.approx(3 / 28, abs=0.03)


def test_groups_are_of_enough_cells(margins: Margins) -> None:
    rng = np.random.default_rng(6)
    for n, expected in ((10, 1), (2 * CELLS_PER_GROUP, 2), (10_000, MAX_GROUPS)):
        size = sizes(rng, n)
        counts = alike(rng, size)
        assert len(Margins.of(counts, size, counts, size, 1).drawn_LGK) == expected
    same = np.full(500, 1e4)  # all cells of one size
    counts = alike(rng, same)
    np.testing.assert_array_equal(
        moved(Margins.of(counts, same, counts, same, 1), counts, same), counts
    )


def test_a_cell_does_not_depend_on_who_else_is_drawn(margins: Margins) -> None:
    rng = np.random.default_rng(7)
    size = sizes(rng, 40)
    counts = alike(rng, size)
    group = margins.groups(size, np.zeros(40, dtype=np.int64))
    cells = CellMargins(margins, group)
    alone = CellMargins(margins, group[7:8]).moved(0, counts[7], np.random.default_rng(1))
    np.testing.assert_array_equal(cells.moved(7, counts[7], np.random.default_rng(1)), alone)


def test_it_is_read_as_it_was_written(margins: Margins) -> None:
    for one, n_genes in ((margins, 2), (Margins.none(), 0)):
        again = Margins.from_arrays(one.arrays(), n_genes)
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(again.arrays()[name], array)
    assert len(Margins.from_arrays({}, 2).drawn_LGK) == 0
    with pytest.raises(ValueError, match="do not fit its genes"):
        Margins.from_arrays(margins.arrays(), 3)


def test_generated_cells_are_brought_to_measured_distributions(
    tiny_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    trained = tiny_model.trained
    assert len(trained.synthesis.margins.drawn_LGK) == 480 // CELLS_PER_GROUP
    real_NG = tiny_screen.X.toarray()
    before = copy.copy(tiny_model)
    before._trained = replace(trained, synthesis=replace(trained.synthesis, margins=Margins.none()))
    error = {}
    for name, model in (("after", tiny_model), ("before", before)):
        made_NG = model.generate(3_000, like=tiny_screen).layers["counts"].toarray()
        error[name] = np.mean(
            [abs((made_NG <= n).mean(0) - (real_NG <= n).mean(0)) for n in range(9)]
        )
    assert error["after"] < 0.8 * error["before"]
