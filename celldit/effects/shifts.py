"""What is observed of conditions: mean latents, doses, and the scatter of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.covariance import ledoit_wolf

from celldit.conditions.condition import Condition, ConditionTable
from celldit.conditions.latents import Latents, condition_sums, rows_of

MAX_CELLS_FOR_COVARIANCE = 20_000


def condition_means(z: Latents, table: ConditionTable) -> tuple[np.ndarray, np.ndarray]:
    """Mean latent and number of cells of each condition."""
    counts = table.counts
    sums = condition_sums(z, table.index, len(table))
    return sums / np.maximum(counts, 1)[:, None], counts


def dose_ranges(
    names: Sequence[str], conditions: Sequence[Condition]
) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
    """Smallest and largest positive dose of each perturbation, 1 where it has none.

    The largest is None where no condition has a dose.
    """
    seen: dict[str, list[float]] = {}
    for condition in conditions:
        for part, dose in zip(condition.parts, condition.doses or (), strict=False):
            if dose > 0:
                seen.setdefault(part, []).append(dose)
    lowest = tuple(min(seen.get(name, [1.0])) for name in names)
    return lowest, tuple(max(seen.get(name, [1.0])) for name in names) if seen else None


def rotation_of(
    z: Latents,
    table: ConditionTable,
    means: np.ndarray,
    shifts: np.ndarray,
    noise: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Whiten the variation within conditions, then turn towards the largest shifts."""
    rows = np.arange(len(z))
    if len(rows) > MAX_CELLS_FOR_COVARIANCE:
        rows = np.random.default_rng(seed).choice(rows, MAX_CELLS_FOR_COVARIANCE, replace=False)
    within, _ = ledoit_wolf(rows_of(z, rows) - means[table.index[rows]], assume_centered=True)
    values, vectors = np.linalg.eigh(within)
    # Cells that are all alike scatter nowhere; they are left as they are.
    floor = 1e-6 * values.max() if values.max() > 0 else 1.0
    whiten = vectors / np.sqrt(np.maximum(values, floor)) @ vectors.T
    white = shifts @ whiten
    share = (1 / noise) / (1 / noise).sum()
    _, turn = np.linalg.eigh((white * share[:, None]).T @ white)
    return whiten @ turn[:, ::-1]
