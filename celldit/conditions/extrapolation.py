"""How far a condition is from those that were trained."""

from __future__ import annotations

from collections.abc import Container, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celldit.conditions.condition import Condition


class Extrapolation(StrEnum):
    """Kinds of conditions, from the nearest to the farthest."""

    SEEN = "seen"
    CONTEXT = "new context"
    COMBINATION = "new combination"
    ELSEWHERE = "known elsewhere"
    UNSEEN = "unseen with features"
    UNKNOWN = "unseen without features"


class Known:
    """What was in training, so that many conditions are classified in one pass.

    Parameters
    ----------
    trained, featured, elsewhere
        As of :func:`classify`.
    """

    def __init__(
        self,
        trained: Iterable[Condition],
        featured: frozenset[str] = frozenset(),
        elsewhere: Container[tuple[str, ...]] = (),
    ) -> None:
        treated = [c for c in trained if not c.is_control]
        self.featured, self.elsewhere = featured, elsewhere
        self.places = {(c.parts, c.context) for c in treated}
        self.combinations = {c.parts for c in treated}
        self.parts = {part for c in treated for part in c.parts}

    def classify(self, condition: Condition) -> Extrapolation:
        """Say what kind of extrapolation a condition is."""
        if condition.is_control or (condition.parts, condition.context) in self.places:
            return Extrapolation.SEEN
        if condition.parts in self.combinations:
            return Extrapolation.CONTEXT
        missing = set(condition.parts) - self.parts
        if not missing:
            return Extrapolation.COMBINATION
        if condition.parts in self.elsewhere or tuple(sorted(missing)) in self.elsewhere:
            return Extrapolation.ELSEWHERE
        return Extrapolation.UNSEEN if missing <= self.featured else Extrapolation.UNKNOWN


def classify(
    condition: Condition,
    trained: Iterable[Condition],
    featured: frozenset[str] = frozenset(),
    elsewhere: Container[tuple[str, ...]] = (),
) -> Extrapolation:
    """Say what kind of extrapolation a condition is.

    Parameters
    ----------
    condition
        The condition asked for. Doses and times do not matter here.
    trained
        The conditions of training.
    featured
        Perturbations for which features are known.
    elsewhere
        Perturbations, and combinations of them, whose effects were measured elsewhere.
    """
    return Known(trained, featured, elsewhere).classify(condition)
