"""Interaction is between perturbations: a single one has none, a pair has its own."""

from __future__ import annotations

import numpy as np

from celldit.conditions import Condition
from celldit.effects.kernel import ConditionKernel


def test_only_combinations_interact() -> None:
    kernel = ConditionKernel(("A", "B"), (1.0, 1.0), {}, {("", None): np.zeros(2)})
    conditions = [Condition(("A",)), Condition(("B",)), Condition(("A", "B"))]
    found = kernel.design(conditions, conditions)["interaction"].numpy()
    assert np.array_equal(found, np.diag([0.0, 0.0, 1.0]))
