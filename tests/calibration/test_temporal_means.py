"""What controls look like at each time."""

from __future__ import annotations

import numpy as np
import pytest

from celldit import CellDiT
from celldit.calibration.temporal_means import TemporalMeans
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


def test_between_two_times_means_lie_on_the_line_and_outside_they_stay() -> None:
    slope_G = np.linspace(-1, 1, 50).astype(np.float32)
    bent = TemporalMeans({("", float(t)): t**2 * slope_G for t in range(4)})
    scale = TimeScale(0, 3)
    np.testing.assert_allclose(bent.mean(("", 1.25), scale), 1.75 * slope_G, rtol=1e-6)
    np.testing.assert_array_equal(bent.mean(("", 2.0), scale), 4 * slope_G)
    np.testing.assert_array_equal(bent.mean(("", 9.0), scale), 9 * slope_G)
    np.testing.assert_array_equal(bent.mean(("", -1.0), scale), 0)


def bent(n_times: int = 5, context: str = "") -> TemporalMeans:
    """A course of noisy means that a line does not fit."""
    slope_G = np.linspace(-1, 1, 50).astype(np.float32)
    means = {(context, float(t)): t**2 * slope_G for t in range(n_times)}
    return TemporalMeans(means, {key: np.full(50, 0.1, np.float32) for key in means})


def read_again(means: TemporalMeans, **more: np.ndarray) -> TemporalMeans:
    return TemporalMeans.from_config(means.to_config(), {**means.arrays(), **more}, 50)


def test_models_that_held_a_curve_are_read_without_it() -> None:
    course, scale, between = bent(), TimeScale(0, 4), ("", 1.5)
    again = read_again(course, curve=np.array([3.0, 0.5, 1.0]))
    np.testing.assert_array_equal(again.mean(between, scale), course.mean(between, scale))
    assert np.abs(again.mean(between, scale) - again.line(between, scale)).max() > 0.01


def test_models_without_noise_keep_to_the_line() -> None:
    again, scale = read_again(TemporalMeans(bent().means)), TimeScale(0, 4)
    np.testing.assert_array_equal(again.mean(("", 1.5), scale), again.line(("", 1.5), scale))


def test_contexts_of_an_earlier_model_without_noise_are_the_same_when_read_again() -> None:
    earlier, scale = TemporalMeans(bent(context="earlier").means), TimeScale(0, 4)
    both = bent(context="now").with_earlier(earlier, np.arange(50))
    again = read_again(both)
    assert set(again.means) == set(both.means)
    for context in ("earlier", "now"):
        for time in (0.0, 1.5, 3.7):
            key = context, time
            np.testing.assert_array_equal(again.mean(key, scale), both.mean(key, scale))
    np.testing.assert_array_equal(again.mean(key, scale), bent().mean(("", key[1]), scale))


def test_of_few_cells_more_times_are_averaged_and_of_many_the_line_stays() -> None:
    rng, scale = np.random.default_rng(0), TimeScale(0, 14)
    truth_TG = np.cumsum(rng.normal(0, 0.3, size=(15, 200)), axis=0)
    off = {}
    for variance in (1e-6, 1.0):
        seen_TG = truth_TG + rng.normal(0, variance**0.5, size=truth_TG.shape)
        means = {("", float(t)): seen_TG[t].astype(np.float32) for t in range(0, 15, 2)}
        noise = {key: np.full(200, variance, np.float32) for key in means}
        for known in (noise, {}):
            found = [
                TemporalMeans(means, known).mean(("", float(t)), scale) for t in range(1, 14, 2)
            ]
            off[variance, bool(known)] = float(((found - truth_TG[1:14:2]) ** 2).mean())
    # A walk has no better guess than the line, and the course may not be much worse.
    assert off[1e-6, True] < 1.02 * off[1e-6, False]
    assert off[1.0, True] < 0.8 * off[1.0, False]


def test_a_course_that_bends_is_nearer_than_the_line_and_a_line_stays_one() -> None:
    phase_G, scale = np.linspace(0, 2, 50), TimeScale(0, 5)
    for course, most in ((lambda t: np.sin(0.7 * t + phase_G), 0.1), (lambda t: t * phase_G, 1e-6)):
        means = {("", float(t)): course(t).astype(np.float32) for t in range(6)}
        noise = {key: np.full(50, 1e-4, np.float32) for key in means}
        off, of_line = (
            np.square(TemporalMeans(means, known).mean(("", 2.5), scale) - course(2.5)).sum()
            for known in (noise, {})
        )
        assert off < most * max(of_line, 1e-3)


def test_genes_that_never_change_stay_what_they_are() -> None:
    means = {("", float(t)): np.array([0.0, 2.5], np.float32) for t in range(5)}
    noise = {key: np.array([0.0, 0.3], np.float32) for key in means}
    found = TemporalMeans(means, noise).mean(("", 1.3), TimeScale(0, 4))
    np.testing.assert_allclose(found, [0, 2.5], rtol=1e-6)


def test_three_times_lie_on_the_line() -> None:
    means = {("", float(t)): np.full(3, t**2, np.float32) for t in (0, 1, 3)}
    noise = {key: np.full(3, 0.5, np.float32) for key in means}
    found = TemporalMeans(means, noise).mean(("", 2.0), TimeScale(0, 3))
    np.testing.assert_allclose(found, 5.0, rtol=1e-6)
