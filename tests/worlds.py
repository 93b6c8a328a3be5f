"""Made-up latents in which every effect is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from celldit.conditions import Condition, ConditionTable


@dataclass(frozen=True, eq=False)
class World:
    """Latents of N cells, their conditions, and the effect of each part."""

    z: np.ndarray
    table: ConditionTable
    effects: dict[str, np.ndarray]

    def truth(self, *names: str) -> np.ndarray:
        return sum((self.effects[name] for name in names), np.zeros(self.z.shape[1]))


def make_world(
    conditions: Sequence[Condition],
    *,
    n_cells: int = 60,
    n_dims: int = 4,
    size: float = 1.0,
    exact: bool = True,
    seed: int = 0,
    strength: Callable[[Condition, str], float] = lambda condition, part: 1.0,
) -> World:
    """Cells about the sum of their parts' effects, by default with the exact mean."""
    rng = np.random.default_rng(seed)
    names = sorted({part for c in conditions for part in c.parts})
    effects = {name: size * rng.normal(size=n_dims) for name in names}
    places = sorted({c.stratum for c in conditions}, key=str)
    position = {place: 2 * rng.normal(size=n_dims) for place in places}
    blocks = []
    for condition in conditions:
        noise = rng.normal(size=(n_cells, n_dims))
        noise -= noise.mean(axis=0) if exact else 0.0
        shift = [strength(condition, part) * effects[part] for part in condition.parts]
        blocks.append(position[condition.stratum] + sum(shift, np.zeros(n_dims)) + noise)
    index = np.repeat(np.arange(len(conditions)), n_cells)
    return World(np.concatenate(blocks), ConditionTable(tuple(conditions), index), effects)


@pytest.fixture(scope="session")
def world() -> Callable[..., World]:
    """A function that makes cells of given conditions."""
    return make_world


@pytest.fixture(scope="session")
def crossed() -> list[Condition]:
    """Six singles and their neighbouring pairs but one, with a control, in two contexts."""
    singles = [(name,) for name in "ABCDEF"]
    pairs = [("A", "B"), ("B", "C"), ("C", "D"), ("D", "E")]
    return [Condition(parts, None, where) for where in "xy" for parts in [(), *singles, *pairs]]
