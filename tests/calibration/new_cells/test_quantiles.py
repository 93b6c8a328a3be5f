"""Counts of new cells take the distribution of measured ones, and keep their order."""

from __future__ import annotations

import copy
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch

from celldit import CellDiT
from celldit.calibration.new_cells.counts import NewCounts
from celldit.calibration.new_cells.fit_quantiles import (
    CELLS_PER_GROUP,
    MAX_GROUPS,
    Drawn,
    fit_quantiles,
)
from celldit.calibration.new_cells.quantiles import CountQuantiles, in_steps


def on_and_off(rng: np.random.Generator, size_N: np.ndarray) -> np.ndarray:
    """A gene that is off in half of the cells, on in the others; and one that small cells have."""
    on_N = rng.random(len(size_N)) < 0.5
    rate_N2 = np.stack([8 * on_N + 0.05, 3 * (size_N < np.median(size_N)) + 0.5], axis=1)
    return rng.poisson(rate_N2 * (size_N / 1e4)[:, None])


def sizes(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.exp(rng.normal(9.2, 0.5, n))


def drawn_as(
    rng: np.random.Generator, size_N: np.ndarray, expected_N2: np.ndarray | None = None
) -> Drawn:
    """Cells that were drawn from one expectation of each gene at their size, unless given."""
    if expected_N2 is None:
        expected_N2 = np.array([4.0, 2.0]) * (size_N / 1e4)[:, None]
        expected_N2 = expected_N2 * rng.gamma(1.5, 1 / 1.5, expected_N2.shape)
    return Drawn(rng.poisson(expected_N2), expected_N2, size_N)


def compared(measured: np.ndarray, size_N: np.ndarray, drawn: Drawn) -> CountQuantiles:
    return fit_quantiles(measured, size_N, drawn, size_N, 1)


@pytest.fixture
def count_quantiles() -> CountQuantiles:
    rng = np.random.default_rng(0)
    size_N, size_M = sizes(rng, 16_000), sizes(rng, 32_000)
    return compared(on_and_off(rng, size_N), size_N, drawn_as(rng, size_M))


def moved(count_quantiles: CountQuantiles, drawn: Drawn, seed: int = 1) -> np.ndarray:
    group = count_quantiles.groups(drawn.size_M, np.zeros(len(drawn.size_M), dtype=np.int64))
    uniform = np.random.default_rng(seed).random(drawn.counts_MG.shape)
    return count_quantiles.moved(drawn.counts_MG, drawn.expected_MG, group, uniform)


def test_drawn_counts_get_the_distribution_of_measured_ones_at_each_size(
    count_quantiles: CountQuantiles,
) -> None:
    rng = np.random.default_rng(2)
    size = sizes(rng, 20_000)
    drawn, truth = drawn_as(rng, size), on_and_off(rng, size)
    found = moved(count_quantiles, drawn)
    small = size < np.median(size)
    for cells in (small, ~small):
        for most in range(12):
            share = (found[cells] <= most).mean(0)
            np.testing.assert_allclose(share, (truth[cells] <= most).mean(0), atol=0.05)
    # Which the drawn counts had not.
    assert abs((drawn.counts_MG == 0).mean(0) - (truth == 0).mean(0)).max() > 0.1


def test_counts_of_the_same_distribution_stay() -> None:
    rng = np.random.default_rng(3)
    drawn = drawn_as(rng, sizes(rng, 3_000))
    same = compared(drawn.counts_MG, drawn.size_M, drawn)
    np.testing.assert_array_equal(moved(same, drawn), drawn.counts_MG)
    group = same.groups(drawn.size_M, np.zeros(3_000, dtype=np.int64))
    np.testing.assert_allclose(same.factors(group), 1, rtol=1e-5)


def test_the_order_of_counts_stays(count_quantiles: CountQuantiles) -> None:
    # Beyond the tables, too, and across classes that no drawn count was in.
    counts = np.repeat(np.r_[0:60, 60:9_000:97][:, None], 2, axis=1)
    expected = np.ones(counts.shape)
    for group in range(MAX_GROUPS):
        for uniform in (0.0, 0.4, 0.999):
            rank = np.full(counts.shape, uniform)
            found = count_quantiles.moved(counts, expected, np.full(len(counts), group), rank)
            assert (np.diff(found, axis=0) >= 0).all()


def test_what_training_did_not_see_stays(count_quantiles: CountQuantiles) -> None:
    rng = np.random.default_rng(4)
    few = drawn_as(rng, sizes(rng, 500))
    # A gene that a perturbation takes beyond all counts that were drawn before.
    many = few._replace(counts_MG=np.full((500, 2), 5_000))
    np.testing.assert_array_equal(moved(count_quantiles, many), many.counts_MG)
    for factor in (1e-3, 1e3):  # libraries of another kind
        other = few._replace(size_M=factor * few.size_M)
        np.testing.assert_array_equal(moved(count_quantiles, other), few.counts_MG)
    later = np.ones(500, dtype=np.int64)  # a state that was not measured
    assert (count_quantiles.groups(few.size_M, later) == -1).all()
    assert (count_quantiles.factors(count_quantiles.groups(few.size_M, later)) == 1).all()
    np.testing.assert_array_equal(moved(CountQuantiles.none(), few), few.counts_MG)


def test_sizes_of_all_training_count_not_of_a_sample_alone(count_quantiles: CountQuantiles) -> None:
    rng = np.random.default_rng(8)
    size = sizes(rng, 400)
    drawn = drawn_as(rng, size)
    whole = fit_quantiles(drawn.counts_MG, size, drawn, np.r_[size, 1e6], 1)
    assert whole.groups(np.array([9e5]), np.array([0])) >= 0
    part = compared(drawn.counts_MG, size, drawn)
    assert part.groups(np.array([9e5]), np.array([0])) == -1


def test_a_gene_that_is_knocked_out_stays_out() -> None:
    rng = np.random.default_rng(9)
    size_N, size_M = sizes(rng, 6_000), sizes(rng, 12_000)
    # Measured cells are off less often than drawn ones: zeros have to become counts.
    measured = rng.poisson(1.5 * (size_N / 1e4)[:, None], (6_000, 2))
    drawn = drawn_as(rng, size_M)
    more = compared(measured, size_N, drawn)
    out_of_it = np.arange(12_000) % 10 == 0
    expected = np.where(out_of_it[:, None], 0.02, drawn.expected_MG)
    found = moved(more, Drawn(rng.poisson(expected), expected, size_M))
    zeros = (rng.poisson(expected) == 0).mean(0)
    assert ((found == 0).mean(0) < zeros - 0.02)[1]
    assert (found[out_of_it] > 0).mean() < 0.05


def test_few_measured_cells_say_little() -> None:
    rng = np.random.default_rng(5)
    drawn = drawn_as(rng, np.full(5_000, 1e4))
    few = compared(np.full((3, 2), 15), drawn.size_M[:3], drawn)
    # Three cells against the 25 that the drawn ones count as.
    more = (moved(few, drawn) >= 15).mean() - (drawn.counts_MG >= 15).mean()
    assert more == pytest.approx(3 / 28, abs=0.03)


def test_groups_are_of_enough_cells() -> None:
    rng = np.random.default_rng(6)
    for n, expected in ((10, 1), (2 * CELLS_PER_GROUP, 2), (10_000, MAX_GROUPS)):
        drawn = drawn_as(rng, sizes(rng, n))
        assert len(compared(drawn.counts_MG, drawn.size_M, drawn).drawn_LGK) == expected


@pytest.mark.parametrize("size", [7.0, 2e3, 1e4])
@pytest.mark.parametrize("share", [0.6, 1.0])
def test_cells_of_one_size_are_one_group(size: float, share: float) -> None:
    rng = np.random.default_rng(10)
    size_N = np.where(rng.random(2_000) < share, size, sizes(rng, 2_000)).astype(np.float32)
    counts = rng.poisson(2.0, (2_000, 2)) * (rng.random((2_000, 2)) < 0.5)
    drawn = Drawn(rng.poisson(1.0, counts.shape), np.ones(counts.shape), size_N)
    one = compared(counts, size_N, drawn)
    found = moved(one, drawn)
    for cells in (size_N == np.float32(size), size_N != np.float32(size)):
        if cells.any():
            error = abs((found[cells] == 0).mean(0) - (counts[cells] == 0).mean(0))
            assert error.max() < 0.06
    group = one.groups(size_N, np.zeros(2_000, dtype=np.int64))
    assert len(set(group[size_N == np.float32(size)])) == 1


def test_a_cell_does_not_depend_on_who_else_is_drawn(count_quantiles: CountQuantiles) -> None:
    rng = np.random.default_rng(7)
    drawn = drawn_as(rng, sizes(rng, 40))
    group = count_quantiles.groups(drawn.size_M, np.zeros(40, dtype=np.int64))
    of_cells = drawn.counts_MG, drawn.expected_MG, group, rng.random((40, 2))
    alone = count_quantiles.moved(*(each[7:8] for each in of_cells))
    np.testing.assert_array_equal(count_quantiles.moved(*of_cells)[7:8], alone)


def test_expectations_follow_the_counts(count_quantiles: CountQuantiles) -> None:
    rng = np.random.default_rng(11)
    drawn = drawn_as(rng, sizes(rng, 20_000))
    found = moved(count_quantiles, drawn)
    group = count_quantiles.groups(drawn.size_M, np.zeros(20_000, dtype=np.int64))
    means = drawn.expected_MG * count_quantiles.factors(group)
    np.testing.assert_allclose(means.mean(0), found.mean(0), rtol=0.03)
    assert abs(drawn.expected_MG.mean(0) / found.mean(0) - 1).max() > 0.05


def test_expected_counts_of_new_cells_are_those_of_their_draws(
    count_quantiles: CountQuantiles,
) -> None:
    size = sizes(np.random.default_rng(12), 4_000)
    size_B = torch.from_numpy(size).float()
    before_BG = torch.tensor([4.0, 2.0]) * size_B[:, None] / 1e4
    model = NewCounts.held(
        before_BG,
        torch.full((2,), 1.5),
        size_B,
        0 * size_B,
        1.0,
        count_quantiles,
        np.zeros(4_000, dtype=np.int64),
    )
    drawn = np.stack([model.draw(i, np.random.default_rng(i)) for i in range(4_000)]).mean(0)
    np.testing.assert_allclose(model.mean_BG.mean(0), drawn, rtol=0.05)
    assert abs(before_BG.mean(0).numpy() / drawn - 1).max() > 0.1


def test_it_is_read_as_it_was_written(count_quantiles: CountQuantiles) -> None:
    for one, n_genes in ((count_quantiles, 2), (CountQuantiles.none(), 0)):
        again = CountQuantiles.from_arrays(one.arrays(), n_genes)
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(again.arrays()[name], array)
    assert len(CountQuantiles.from_arrays({}, 2).drawn_LGK) == 0
    with pytest.raises(ValueError, match="do not fit its genes"):
        CountQuantiles.from_arrays(count_quantiles.arrays(), 3)


def test_generated_cells_are_brought_to_measured_distributions(
    tiny_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    trained = tiny_model.trained
    assert len(trained.new_cell_model.count_quantiles.drawn_LGK) == 480 // CELLS_PER_GROUP
    real_NG = tiny_screen.X.toarray()
    before = copy.copy(tiny_model)
    before._trained = replace(
        trained,
        new_cell_model=replace(trained.new_cell_model, count_quantiles=CountQuantiles.none()),
    )
    error = {}
    for name, model in (("after", tiny_model), ("before", before)):
        made = model.generate(3_000, like=tiny_screen)
        made_NG = made.layers["counts"].toarray()
        error[name] = np.mean(
            [abs((made_NG <= n).mean(0) - (real_NG <= n).mean(0)) for n in range(9)]
        )
    assert error["after"] < 0.8 * error["before"]


def test_shares_in_steps_take_little_room_and_others_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    below_LGK = np.zeros((2, 40, 30), dtype=np.float32)
    below_LGK[:, :, 1:5] = np.sort(rng.random((2, 40, 4)), axis=2)
    below_LGK[:, :, 5:] = 1
    edges, sizes, silent = np.arange(30), np.arange(3.0), np.ones((2, 40), dtype=np.float32)
    for shares, is_packed in ((in_steps(below_LGK), True), (below_LGK, False)):
        one = CountQuantiles(edges, sizes, shares, shares, silent, 1)
        arrays = one.arrays()
        assert ("drawn_steps" in arrays) == is_packed
        again = CountQuantiles.from_arrays(arrays, 40)
        np.testing.assert_array_equal(again.drawn_LGK, shares)
        np.testing.assert_array_equal(again.measured_LGK, shares)
        if is_packed:
            assert arrays["drawn_steps"].nbytes < shares.nbytes / 10
            arrays["drawn_steps"] = arrays["drawn_steps"][1:]
            with pytest.raises(ValueError, match="do not fit one another"):
                CountQuantiles.from_arrays(arrays, 40)
