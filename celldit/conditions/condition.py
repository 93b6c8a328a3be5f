"""A condition: which perturbations, at which dose, at which time, in which context."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from celldit.data.labels.doses import dose_parts
from celldit.data.labels.labels import join, parts
from celldit.data.store import CellStore


@dataclass(frozen=True)
class Condition:
    """One condition."""

    parts: tuple[str, ...] = ()  # names of the perturbations, sorted; empty for a control
    # One for each part; None without doses, and of a control.
    doses: tuple[float, ...] | None = None
    context: str = ""  # covariate values of the cell joined with " | "; empty for none
    time: float | None = None  # None where the data have no times

    def __post_init__(self) -> None:
        # Else the controls of data with doses would be other conditions than those of `control`.
        if not self.parts and self.doses is not None:
            object.__setattr__(self, "doses", None)

    @property
    def is_control(self) -> bool:
        """Whether nothing was done to the cell."""
        return not self.parts

    @property
    def stratum(self) -> tuple[str, float | None]:
        """Context and time: what the cells share with their own controls."""
        return self.context, self.time

    def control(self) -> Condition:
        """The same stratum with nothing done."""
        return Condition(context=self.context, time=self.time)

    def only(self, names: Container[str]) -> Condition:
        """The same with those of its perturbations that are among `names`."""
        kept = [i for i, part in enumerate(self.parts) if part in names]
        doses = None if self.doses is None else tuple(self.doses[i] for i in kept)
        return replace(self, parts=tuple(self.parts[i] for i in kept), doses=doses)

    def label(self, sep: str, control: str) -> str:
        """Write the perturbation as a label."""
        return join(self.parts, sep, control)

    def to_list(self) -> list[Any]:
        """Write as a list that JSON keeps."""
        doses = None if self.doses is None else list(self.doses)
        return [list(self.parts), doses, self.context, self.time]

    @classmethod
    def from_list(cls, entry: list[Any]) -> Condition:
        """Read what :meth:`to_list` wrote."""
        names, doses, context, time = entry
        return cls(tuple(names), None if doses is None else tuple(doses), context, time)


@dataclass(frozen=True, eq=False)
class ConditionTable:
    """The conditions that occur among N cells."""

    conditions: tuple[Condition, ...]  # the C distinct ones, controls included
    index: np.ndarray  # condition of each cell, int64, shape (N,)

    @classmethod
    def from_cells(cls, cells: CellStore, sep: str) -> ConditionTable:
        """Find the distinct conditions among the cells."""
        columns: dict[str, Any] = {"perturbation": cells.perturbations, "context": cells.contexts}
        columns["dose"] = 0.0 if cells.doses is None else cells.doses
        columns["time"] = 0.0 if cells.times is None else cells.times
        frame = pd.DataFrame(columns, index=range(cells.n_cells))
        # A control has no parts, so its dose means nothing and must not make two conditions of one.
        frame.loc[cells.is_control, "dose"] = 0.0
        groups = frame.groupby(["perturbation", "context", "dose", "time"], sort=True)
        index = groups.ngroup().to_numpy(dtype=np.int64)
        first = frame.iloc[np.unique(index, return_index=True)[1]]
        conditions = []
        for row in first.itertuples(index=False):
            names = parts(row.perturbation, sep, cells.control)
            doses = None if cells.doses is None else dose_parts(row.dose, len(names), sep)
            time = None if cells.times is None else float(row.time)
            conditions.append(Condition(names, doses, str(row.context), time))
        return cls(tuple(conditions), index)

    def __len__(self) -> int:
        return len(self.conditions)

    @cached_property
    def counts(self) -> np.ndarray:
        """Cells of each condition, int64, shape (C,)."""
        return np.bincount(self.index, minlength=len(self))

    @cached_property
    def row_of(self) -> dict[Condition, int]:
        """Where each condition is among them."""
        return {condition: row for row, condition in enumerate(self.conditions)}

    def controls(self, least: int = 1) -> dict[tuple[str, float | None], int]:
        """Row of the controls of each context and time that has at least so many of them."""
        return {
            c.stratum: row
            for c, row in self.row_of.items()
            if c.is_control and self.counts[row] >= least
        }

    def cells_of(self, condition: int) -> np.ndarray:
        """Positions of the cells of one condition."""
        return np.flatnonzero(self.index == condition)
