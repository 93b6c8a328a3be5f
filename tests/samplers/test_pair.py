"""New cells at times between those of training."""

from __future__ import annotations

import numpy as np
import pytest

from celldit import CellDiT
from celldit.conditions import Condition
from celldit.samplers.pair import Pair
from celldit.samplers.trained import Asked


@pytest.fixture(scope="module")
def timed(simulate_screen, train_tiny) -> CellDiT:
    """A model of two days with one gene that rises and one that falls."""
    adata = simulate_screen(240, labels=("control",))
    adata.obs["day"] = np.repeat([1.0, 3.0], 120)
    counts, rng = adata.X.toarray(), np.random.default_rng(1)
    counts[:, 5] = rng.poisson(5 * adata.obs["day"].to_numpy() ** 2)
    counts[:, 6] = rng.poisson(40 / adata.obs["day"].to_numpy() ** 2)
    adata.X = type(adata.X)(counts)
    CellDiT.setup_anndata(adata, covariate_keys=(), time_key="day")
    return train_tiny(adata)


def test_cells_come_from_both_ends_the_more_the_nearer(timed: CellDiT) -> None:
    conditions = [Condition(time=1.0), Condition(time=1.5), Condition(time=3.0)]
    asked = Asked.of_rows(timed.trained, conditions, np.repeat([0, 1, 2], [100, 1000, 100]))
    pair = Pair.of(timed.trained, asked, seed=0)
    times = np.array([c.time for c in pair.ends.conditions])
    assert (times[pair.ends.row[:100]] == 1).all()
    assert (times[pair.ends.row[-100:]] == 3).all()
    from_late = times[pair.ends.row[100:1100]] == 3
    assert 0.2 < from_late.mean() < 0.3
    assert np.array_equal(pair.share_N[100:1100], np.where(from_late, 0.75, 0.25))
    assert not pair.share_N[:100].any()
    assert not pair.share_N[-100:].any()
    assert pair.towards(np.arange(100)) is None


def test_their_expected_counts_lie_between_those_of_the_ends(timed: CellDiT) -> None:
    at = {time: timed.generate(600, time=time) for time in (1, 2, 3)}
    rate = {
        time: (cells.layers["mean"].toarray() / cells.obs["size_factor"].to_numpy()[:, None]).mean(
            0
        )
        for time, cells in at.items()
    }
    middle = 0.5 * (rate[1] + rate[3])
    assert rate[2][5] == pytest.approx(middle[5], rel=0.1)
    assert rate[2][6] == pytest.approx(middle[6], rel=0.1)


def test_each_has_its_own_random_numbers(timed: CellDiT) -> None:
    many, few = timed.generate(300, time=1.7), timed.generate(20, time=1.7, batch_size=7)
    assert (many.layers["counts"][:20] != few.layers["counts"]).nnz == 0
    assert np.array_equal(many.obsm["X_celldit"][:20], few.obsm["X_celldit"])
