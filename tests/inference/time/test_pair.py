"""New cells at times between those of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from celldit import CellDiT
from celldit.conditions import Condition
from celldit.inference.batch import ConditionBatch
from celldit.inference.time.pair import Pair
from celldit.training.trained import Trained


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
    asked = ConditionBatch.of_rows(
        timed.trained, conditions, np.repeat([0, 1, 2], [100, 1000, 100])
    )
    pair = Pair.of(timed.trained, asked, seed=0)
    times = np.array([c.time for c in pair.ends.conditions])
    assert (times[pair.ends.row[:100]] == 1).all()
    assert (times[pair.ends.row[-100:]] == 3).all()
    from_late = times[pair.ends.row[100:1100]] == 3
    assert 0.2 < from_late.mean() < 0.3
    assert np.array_equal(pair.share_N[100:1100], np.where(from_late, 0.75, 0.25))
    assert not pair.share_N[:100].any()
    assert not pair.share_N[-100:].any()


def test_both_ends_are_new_cells_of_their_times(
    timed: CellDiT, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, pairs = Pair.of, []

    def arrived(trained: Trained, asked: ConditionBatch, seed: int) -> Pair:
        pair = made(trained, asked, seed)
        pairs.append(replace(pair, share_N=np.ones_like(pair.share_N)))
        return pairs[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Pair, "of", arrived)
        moved = timed.generate(1200, time=2).layers["counts"].toarray()
    goals = np.array([c.time for c in pairs[0].ends.conditions])[pairs[0].other_N[:1200]]
    late = goals == 3
    there = timed.generate(600, time=3).layers["counts"].toarray()
    for gene in (5, 6):
        ours, theirs = np.log1p(moved[late, gene]), np.log1p(there[:, gene])
        assert ours.mean() == pytest.approx(theirs.mean(), abs=0.12)
        assert ours.std() == pytest.approx(theirs.std(), rel=0.15)


def test_cells_of_a_trained_time_are_the_same_beside_others(timed: CellDiT) -> None:
    conditions = [Condition(time=1.0), Condition(time=1.5)]
    keys = np.arange(40)
    states = np.zeros(40, dtype=np.int64)
    pair = Pair.of(
        timed.trained, ConditionBatch.of_rows(timed.trained, conditions, keys % 2), seed=0
    )
    still = pair.share_N[keys] == 0
    assert np.array_equal(still, keys % 2 == 0)
    assert (pair.states_of_others(keys, states)[still] == 0).all()


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
