"""Does a source of features say more of these effects than the same features dealt out at random?

Features can fit by chance, the more easily the fewer perturbations have a strong effect. A source
is therefore believed, for perturbations never seen, only where leaving each described perturbation
out goes better with it than with its rows given to the perturbations at random: a permutation test
at a level of 2% (``docs/results/features.csv``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from celldit.conditions.condition import Condition
from celldit.effects.features.features import FeatureMatrix
from celldit.effects.kernel import ConditionKernel

SHUFFLES = 99
MAY_BE_BETTER = 1
# Weights of a source at which it is tried, beside that of each perturbation's own part.
TRIED = (1.0, 10.0)
# Fewer described perturbations have too few orders for a test.
MIN_DESCRIBED = 5


def informative_sources(
    kernel: ConditionKernel,
    conditions: Sequence[Condition],
    without_CC: Tensor,
    part: float,
    error: Callable[[Tensor], float],
    seed: int,
) -> set[str]:
    """The sources of features that leave out better than their own shuffles.

    Of C observed conditions `without_CC` is the covariance without any source, and `part` the
    weight of each perturbation's own part in it; `error` is the squared error of leaving
    perturbations out, of a covariance (C, C). The seed is of the shuffles.
    """
    error_without = error(without_CC)
    trained = {name for condition in conditions for name in condition.parts}
    found = set()
    for source, (names, matrix) in kernel.features.items():
        # Sorted, so that the order of a table's rows cannot change the verdict.
        rows = sorted((i for i, name in enumerate(names) if name in trained), key=names.__getitem__)
        if len(rows) < MIN_DESCRIBED:
            continue
        described = np.array([names[i] for i in rows], dtype=object)

        def least(order: np.ndarray, source: str, matrix: FeatureMatrix) -> float:
            dealt = replace(kernel, features={source: (tuple(order), matrix)})
            design_CC = dealt.design(conditions, conditions)[f"feature:{source}"]
            return min(error(without_CC + part * weight * design_CC) for weight in TRIED)

        own = least(described, source, matrix[rows])
        if own >= error_without:
            continue
        rng = np.random.default_rng(seed)
        better = 0
        for _ in range(SHUFFLES):
            # An order that comes to the same thing is no better by the last digit.
            shuffled = least(rng.permutation(described), source, matrix[rows])
            better += shuffled < own * (1 - 1e-9)
            if better > MAY_BE_BETTER:
                break
        else:
            found.add(source)
    return found


def without_sources(weights: Tensor, terms: Sequence[str], kept: set[str]) -> Tensor:
    """The same weights, those of sources that are not `kept` given to each perturbation's part."""
    changed = weights.clone()
    for i, term in enumerate(terms):
        if term.startswith("feature:") and term.removeprefix("feature:") not in kept:
            changed[terms.index("part")] += changed[i]
            changed[i] = 0
    return changed
