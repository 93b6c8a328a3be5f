"""Who computes the measures of differential expression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from celldit.errors import UnknownNameError
from celldit.evaluation.catalogue import FUNCTIONS
from celldit.evaluation.condition import Condition

__all__ = ["Engine", "check_engine", "measure"]

Engine = Literal["celldit", "cell-eval"]


def check_engine(engine: str) -> None:
    """Refuse an engine that is not known or not installed, before any work.

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    InputError
        If its package is missing.
    """
    if engine not in get_args(Engine):
        raise UnknownNameError.among("engine", engine, get_args(Engine))
    if engine == "cell-eval":
        from celldit.evaluation.cell_eval import check_installed

        check_installed()


def measure(
    condition: Condition, names: Sequence[str], engine: Engine = "celldit"
) -> dict[str, float]:
    """Compute measures of one condition.

    Parameters
    ----------
    condition
        The cells.
    names
        Measures; those that are not of one condition alone are passed over.
    engine
        Who computes those that rest on tests of genes.

    Returns
    -------
    dict
        Value of each.
    """
    own = [name for name in names if name in FUNCTIONS]
    values: dict[str, float] = {}
    if engine == "cell-eval":
        from celldit.evaluation.cell_eval import BY_ITS_TESTS, NAMES, cell_eval_scores

        theirs = [name for name in own if name in NAMES or name in BY_ITS_TESTS]
        values = cell_eval_scores(condition, theirs) if theirs else {}
    return {name: values[name] if name in values else FUNCTIONS[name](condition) for name in own}
