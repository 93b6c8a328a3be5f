"""What controls look like at each time."""

from __future__ import annotations

import numpy as np
import pytest

from celldit import CellDiT
from celldit.calibration.temporal_means import TemporalMeans

FIRST, SECOND, OTHER = ("a", 1.0), ("a", 2.0), ("b", 1.0)


def temporal_means(**levels: float) -> TemporalMeans:
    keys = {"first": FIRST, "second": SECOND, "other": OTHER}
    means = {keys[name]: np.full(3, level, np.float32) for name, level in levels.items()}
    return TemporalMeans(means)


def test_only_one_context_at_two_measured_times_is_known() -> None:
    known = temporal_means(first=1, second=2, other=3)
    assert known.knows(FIRST, SECOND)
    assert not known.knows(FIRST, FIRST)
    assert not known.knows(FIRST, OTHER)
    assert not known.knows(FIRST, ("a", 1.5))
    assert not TemporalMeans({}).knows(FIRST, SECOND)


def test_an_earlier_training_adds_contexts_of_its_own() -> None:
    genes, earlier = ("x", "y"), temporal_means(first=1, other=3)
    now = TemporalMeans({SECOND: np.full(2, 2, np.float32)})
    both = now.with_earlier(genes, earlier, ("y", "z", "x"))
    assert set(both.means) == {SECOND, OTHER}
    assert len(both.means[OTHER]) == 2
    assert now.with_earlier(genes, earlier, ("y", "z")) is now


def test_written_and_read_again() -> None:
    first = temporal_means(first=1, second=2)
    again = TemporalMeans.from_config(first.to_config(), first.arrays(), 3)
    assert {key: m.tolist() for key, m in again.means.items()} == {
        key: m.tolist() for key, m in first.means.items()
    }
    assert TemporalMeans.from_config([], {}, 3).means == {}
    with pytest.raises(ValueError, match="course"):
        TemporalMeans.from_config(first.to_config(), first.arrays(), 4)


def test_a_model_of_one_time_holds_none_and_one_of_several_keeps_them(
    simulate_screen, train_tiny, tiny_model, tmp_path
) -> None:
    assert tiny_model.trained.temporal_means.means == {}
    adata = simulate_screen(120, labels=("control",))
    adata.obs["day"] = np.repeat([1.0, 2.0, 3.0], [50, 60, 10])
    CellDiT.setup_anndata(adata, covariate_keys=(), time_key="day")
    model = train_tiny(adata, max_epochs=0)
    # Ten cells are too few to hold others to.
    assert set(model.trained.temporal_means.means) == {("", 1.0), ("", 2.0)}
    model.save(tmp_path / "model")
    again = CellDiT.load(tmp_path / "model")
    temporal_means = model.trajectory(adata, times=[1, 1.5], n_steps=1)
    same = again.trajectory(adata, times=[1, 1.5], n_steps=1)
    assert (temporal_means.layers["counts"] != same.layers["counts"]).nnz == 0
