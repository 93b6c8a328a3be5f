"""The two ends of the scale: the mean response of the panel, and a replicate of the measurement."""

from __future__ import annotations

import numpy as np

from celldit.evaluation.challenge.groups import CountGroups
from celldit.evaluation.challenge.measures import (
    Reference,
    Side,
    fold_change_error,
    measure_panel,
)
from celldit.evaluation.challenge.panel import Panel

#: Random halvings of the measured cells.
N_SPLITS = 5


def mean_response(panel: Panel, seed: int = 0) -> CountGroups:
    """Predict the mean of all measured perturbations for each of them, in fractional counts.

    Control cells drawn with replacement, as many as were measured, each gene scaled by the ratio of
    its mean over perturbations to its mean in control cells. A perturbation does not count for the
    genes it acts on.
    """
    real, controls = panel.real, panel.controls
    means_PG = real.sums() / real.sizes[:, None]
    counted_PG = np.ones_like(means_PG)
    for p, label in enumerate(real.labels):
        counted_PG[p, panel.targets.get(label, ())] = 0.0
    n_G = counted_PG.sum(axis=0)
    # A gene that every perturbation acts on keeps its mean over all of them.
    counted_PG[:, n_G == 0] = 1.0
    profile_G = (means_PG * counted_PG).sum(axis=0) / counted_PG.sum(axis=0)
    base_G = controls.sums()[0] / controls.sizes[0]
    ratio_G = np.divide(profile_G, base_G, out=np.zeros_like(base_G), where=base_G > 0)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.integers(0, controls.sizes[0], size=n) for n in real.sizes])
    cells = controls.counts[drawn].copy()
    cells.data = (cells.data * ratio_G[cells.indices]).astype(np.float32)
    cells.eliminate_zeros()
    return CountGroups(cells, np.repeat(np.arange(len(real.labels)), real.sizes), real.labels)


def replicate(panel: Panel, full: Side, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Score one half of the measured cells as a prediction of the other, in five halvings.

    Each half has control cells of its own: with the same for both, the noise of the controls is
    taken for agreement. `full`, all measured cells, says which genes the error of fold changes is
    taken over. Of each halving what :func:`measure_panel` returns.
    """
    own_PG = np.zeros(full.tests.q_value.shape, dtype=bool)
    for p, label in enumerate(full.labels):
        own_PG[p, panel.targets.get(label, ())] = True
    found = []
    for state in np.random.SeedSequence(seed).generate_state(N_SPLITS):
        halves = _halves(panel, int(state))
        measured, predicted = (Side.of(cells, Reference.of(base)) for cells, base in halves)
        values = measure_panel(predicted, measured, panel.targets)
        # A half calls fewer genes, so of fewer perturbations: all cells say which genes count.
        changes = (predicted.tests.log2_fold_change, measured.tests.log2_fold_change)
        values["fold_change_error"] = fold_change_error(*changes, full.tests, own_PG)
        found.append(values)
    return found


def _halves(panel: Panel, seed: int) -> list[tuple[CountGroups, CountGroups]]:
    real, controls, control_label = panel.real, panel.controls, panel.control_label
    rng = np.random.default_rng(seed)
    first: dict[str, np.ndarray] = {}
    second: dict[str, np.ndarray] = {}
    groups = dict(zip(real.labels, real.rows(), strict=True))
    groups[control_label] = np.arange(controls.counts.shape[0])
    # Where the control cells stand in the alphabet decides which random numbers they get.
    for label in sorted(groups):
        shuffled = rng.permutation(groups[label])
        half = len(shuffled) // 2
        first[label], second[label] = shuffled[:half], shuffled[half : 2 * half]
    sides = []
    for half_rows in (first, second):
        perturbed = np.concatenate([half_rows[label] for label in real.labels])
        sides.append((real.take(perturbed), controls.take(half_rows[control_label])))
    return sides
