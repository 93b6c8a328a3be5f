"""The six measures by hand, and on predictions that are known to be good or empty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from celldit.evaluation.challenge.measures import (
    MEASURES,
    TARGET_SUM,
    Profiles,
    Reference,
    Side,
    aggregate,
    measure_panel,
)
from celldit.evaluation.challenge.panel import CountGroups, Panel
from celldit.evaluation.challenge.scores import mean_response, place, replicate

LABELS = ("A", "B", "C", "D")
TARGETS = {label: np.array([p]) for p, label in enumerate(LABELS)}


def panel(seed: int, n: int = 60, n_genes: int = 80) -> tuple[CountGroups, CountGroups]:
    """Four perturbations, each with twenty genes of its own, and control cells."""
    rng = np.random.default_rng(seed)
    rates = np.random.default_rng(99).gamma(2.0, 2.0, size=n_genes)
    moved = np.tile(rates, (4, 1))
    for p in range(4):
        moved[p, p] *= 0.1
        up = slice(4 + 19 * p, 23 + 19 * p)
        moved[p, up] *= np.where(np.arange(19) % 2, 2.2, 0.4)
    codes = np.repeat(np.arange(4), n)
    counts = sparse.csr_matrix(rng.poisson(moved[codes]).astype(np.float32))
    control = sparse.csr_matrix(rng.poisson(rates, size=(2 * n, n_genes)).astype(np.float32))
    return CountGroups(counts, codes, LABELS), CountGroups.single(control)


def as_panel(groups: CountGroups, control: CountGroups) -> Panel:
    genes = tuple(f"g{i}" for i in range(groups.counts.shape[1]))
    return Panel(groups, groups, control, TARGETS, genes, "control")


@pytest.fixture(scope="module")
def real() -> tuple[CountGroups, CountGroups, Reference, Side]:
    groups, control = panel(0)
    reference = Reference.of(control)
    return groups, control, reference, Side.of(groups, reference)


def scores(predicted: CountGroups, real: tuple) -> dict[str, float]:
    return aggregate(measure_panel(Side.of(predicted, real[2]), real[3], TARGETS))


def test_another_draw_is_near_perfect(real: tuple) -> None:
    found = scores(panel(1)[0], real)
    assert list(found) == list(MEASURES)
    assert found["pds"] == 1.0
    assert found["squared_error"] == pytest.approx(0.0, abs=0.05)
    assert found["direction"] > 0.8
    assert found["reach"] > 0.9
    assert found["jaccard"] > 0.6
    assert found["fold_change_error"] < 0.25


def test_control_cells_are_at_the_floor(real: tuple) -> None:
    groups, control = real[0], real[1]
    rows = np.tile(np.arange(60), 4)
    empty = CountGroups(control.counts[rows], groups.codes, LABELS)
    found = scores(empty, real)
    assert found["pds"] == pytest.approx(0.5, abs=0.02)
    assert found["squared_error"] == pytest.approx(1.0, abs=0.1)
    assert found["direction"] < 0.1
    assert found["jaccard"] < 0.1
    assert found["fold_change_error"] == pytest.approx(1.0, abs=0.1)


def test_own_targets_do_not_count(real: tuple) -> None:
    """Cells that differ from the controls in the targets alone are worth nothing."""
    groups, control = real[0], real[1]
    counts = control.counts[np.tile(np.arange(60), 4)].tolil()
    for p in range(4):
        counts[60 * p : 60 * (p + 1), p] = 0
    only_targets = CountGroups(counts.tocsr(), groups.codes, LABELS)
    found = scores(only_targets, real)
    assert found["pds"] == pytest.approx(0.5, abs=0.35)
    assert found["direction"] < 0.15


def test_mixed_up_labels_rank_below(real: tuple) -> None:
    groups = panel(1)[0]
    turned = CountGroups(groups.counts, (groups.codes + 1) % 4, LABELS)
    found, good = scores(turned, real), scores(groups, real)
    for name in MEASURES:
        sign = -1 if name in ("squared_error", "fold_change_error") else 1
        assert sign * found[name] < sign * good[name], name


def test_noise_of_a_profile_is_that_of_repeated_draws() -> None:
    drawn = [Profiles.of(panel(seed)[0]) for seed in range(60)]
    means = np.stack([profile.means for profile in drawn])
    measured = means.var(axis=0, ddof=1).sum(axis=1)
    stated = np.mean([profile.noise for profile in drawn], axis=0)
    np.testing.assert_allclose(stated, measured, rtol=0.15)
    # A group's profile does not depend on its depth.
    one = panel(0)[0]
    deep = CountGroups(one.counts * 3, one.codes, LABELS)
    np.testing.assert_allclose(Profiles.of(deep).means, Profiles.of(one).means, rtol=1e-6)
    assert np.expm1(Profiles.of(one).means).sum(axis=1) == pytest.approx(TARGET_SUM)


def test_the_mean_response_is_the_mean_without_the_own_target(real: tuple) -> None:
    groups, control = real[0], real[1]
    base = mean_response(as_panel(groups, control))
    assert base.labels == LABELS
    np.testing.assert_array_equal(base.sizes, groups.sizes)
    means = groups.sums() / groups.sizes[:, None]
    expected = means.mean(axis=0)
    for p in range(4):
        expected[p] = np.delete(means[:, p], p).mean()
    drawn = base.sums() / base.sizes[:, None]
    np.testing.assert_allclose(drawn.mean(axis=0), expected, rtol=0.15)
    # All perturbations get the same, up to the draw of cells.
    assert np.abs(drawn - drawn.mean(axis=0)).mean() < 0.1 * drawn.mean()


def test_halves_have_control_cells_of_their_own(real: tuple, monkeypatch) -> None:
    groups, control, _, full = real
    seen: list[np.ndarray] = []
    whole = control.counts.toarray()
    original = Reference.of

    def watch(counts):
        seen.append(counts.counts.toarray())
        return original(counts)

    monkeypatch.setattr(Reference, "of", watch)
    halvings = replicate(as_panel(groups, control), full)
    assert len(halvings) == 5
    assert len(seen) == 10
    rows = {row.tobytes() for row in whole}
    assert len(rows) == len(whole)
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        one, other = ({row.tobytes() for row in half} for half in (first, second))
        assert not one & other
        assert one | other == rows
    assert np.mean([aggregate(h)["pds"] for h in halvings]) == 1.0


def test_a_few_called_genes_say_nothing_of_fold_changes() -> None:
    groups, control = panel(0, n=4)
    reference = Reference.of(control)
    side = Side.of(groups, reference)
    found = measure_panel(side, side, TARGETS)
    n_called = side.tests.called.sum(axis=1)
    assert (n_called < 10).any()
    assert np.isnan(found["fold_change_error"][n_called < 10]).all()


def test_scores_are_placed_and_clipped_as_the_challenge_has_it() -> None:
    assert place(0.75, 0.5, 1.0, "pds") == pytest.approx(0.5)
    assert place(0.25, 0.5, 1.0, "pds") == pytest.approx(-0.5)
    assert place(np.nan, 0.5, 1.0, "pds") == pytest.approx(-1.0)
    assert place(2.0, 1.0, 0.2, "squared_error") == 0.0
    assert place(-1.0, 1.0, 0.2, "squared_error") == 1.0
    assert place(9.0, 1.0, 0.5, "fold_change_error") == -6.0
    assert place(0.25, 1.0, 0.5, "fold_change_error") == pytest.approx(1.5)
    # A replicate that is no better than the baseline leaves nothing to gain.
    assert np.isnan(place(0.9, 0.8, 0.7, "jaccard"))
    assert np.isnan(place(0.9, np.nan, 0.7, "jaccard"))
