"""What controls look like at each time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from celldit import CellDiT
from celldit.calibration.temporal_means import Curve, TemporalMeans, curve_weights
from celldit.conditions.time_scale import TimeScale

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
    assert known.knows(FIRST, ("a", 1.5))
    assert not known.knows(("a", 1.5), FIRST)
    assert not TemporalMeans({}).knows(FIRST, SECOND)


def test_an_earlier_training_adds_contexts_of_its_own() -> None:
    earlier = temporal_means(first=1, other=3)
    now = TemporalMeans({SECOND: np.full(2, 2, np.float32)})
    both = now.with_earlier(earlier, np.array([2, 0]))
    assert set(both.means) == {SECOND, OTHER}
    assert len(both.means[OTHER]) == 2


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
    temporal_means = model.trajectory(adata, times=[1, 1.5])
    same = again.trajectory(adata, times=[1, 1.5])
    assert (temporal_means.layers["counts"] != same.layers["counts"]).nnz == 0


def course(values: np.ndarray, noise: float = 1e-4) -> TemporalMeans:
    """Means of 50 genes at the times 0, 1, ..."""
    means = {("", float(t)): row.astype(np.float32) for t, row in enumerate(values)}
    measured = TemporalMeans(means, {key: np.full(50, noise, np.float32) for key in means})
    return replace(measured, curve=measured._choose_curve(TimeScale(0, len(values) - 1)))


def test_few_times_lie_on_a_line_and_a_line_stays_one() -> None:
    slope_G = np.linspace(-1, 1, 50)
    two = course(np.stack([0 * slope_G, slope_G]))
    np.testing.assert_allclose(two.mean(("", 0.25), TimeScale(0, 1)), 0.25 * slope_G, atol=1e-6)
    five = course(np.arange(5)[:, None] * slope_G)
    np.testing.assert_allclose(five.mean(("", 2.5), TimeScale(0, 4)), 2.5 * slope_G, atol=2e-2)
    np.testing.assert_allclose(five.mean(("", 2.0), TimeScale(0, 4)), 2 * slope_G, rtol=1e-6)
    np.testing.assert_allclose(five.mean(("", 9.0), TimeScale(0, 4)), 4 * slope_G, rtol=1e-6)


def test_a_course_that_bends_is_nearer_to_a_curve_than_to_the_line() -> None:
    phase_G = np.linspace(0, 2, 50)
    bent = course(np.stack([np.sin(0.7 * t + phase_G) for t in range(6)]))
    scale, truth_G = TimeScale(0, 5), np.sin(0.7 * 2.5 + phase_G)
    off = np.square(bent.mean(("", 2.5), scale) - truth_G).sum()
    assert off < 0.2 * np.square(bent.line(("", 2.5), scale) - truth_G).sum()


def test_a_course_that_turns_at_every_time_keeps_close_to_lines_between_neighbours() -> None:
    rng = np.random.default_rng(0)
    walk_TG = np.cumsum(rng.normal(size=(15, 50)), axis=0)
    rough, scale = course(walk_TG[::2]), TimeScale(0, 7)
    assert not rough.curve.smooth
    off, of_line = (
        sum(np.square(of(("", t + 0.5), scale) - walk_TG[2 * t + 1]).sum() for t in range(7))
        for of in (rough.mean, rough.line)
    )
    assert off < 1.02 * of_line
    again = TemporalMeans.from_config(rough.to_config(), rough.arrays(), 50)
    assert again.curve == rough.curve
    older = {**rough.arrays(), "curve": np.array([3.0, 0.5])}
    assert TemporalMeans.from_config(rough.to_config(), older, 50).curve == Curve(3.0, 0.5, True)


def test_genes_of_which_little_is_known_do_not_choose_the_curve() -> None:
    rng, phase_G = np.random.default_rng(0), np.linspace(0, 2, 10)
    bent_TG = np.stack([np.sin(0.7 * t + phase_G) for t in range(6)])
    faint_TG = np.cumsum(rng.normal(0, 0.02, size=(6, 40)), axis=0)
    values, noise = np.hstack([bent_TG, faint_TG]), np.repeat([1e-4, 1e-3], [10, 40])
    means = {("", float(t)): row.astype(np.float32) for t, row in enumerate(values)}
    every = TemporalMeans(means, {key: noise.astype(np.float32) for key in means})
    alone = TemporalMeans(
        {key: row[:10] for key, row in means.items()},
        {key: noise[:10].astype(np.float32) for key in means},
    )
    curve = every._choose_curve(TimeScale(0, 5))
    assert curve == alone._choose_curve(TimeScale(0, 5))
    assert curve.smooth
    faint = TemporalMeans(means, {key: np.full(50, 9, np.float32) for key in means})
    assert faint._choose_curve(TimeScale(0, 5)) == Curve()


def test_the_weights_of_a_curve_keep_every_line() -> None:
    u_T = np.array([0.0, 0.2, 0.7, 1.0])
    weight_GT = curve_weights(u_T, np.full((3, 4), 0.1), 0.4, Curve(1.0, 0.5))
    np.testing.assert_allclose(weight_GT.sum(1), 1)
    np.testing.assert_allclose(weight_GT @ u_T, 0.4)
