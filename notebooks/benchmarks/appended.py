"""Tables of results that grow: what has rows is not run again."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Case = Mapping[str, Any]


def append_missing(
    out: Path,
    columns: Sequence[str],
    cases: Iterable[Case],
    run: Callable[[Case], Iterable[Case]],
) -> None:
    """Run every case that has no rows in a table yet, and append and print its rows.

    Parameters
    ----------
    out
        The table, ``.csv``; made if it is not there.
    columns
        Of the table.
    cases
        What tells rows of one case from those of others, by column.
    run
        Gives the rows of a case, by column; what is the case's own may be left out. They are
        written when all are there, so that a case that fails is run again.
    """
    if not out.exists():
        out.write_text(",".join(columns) + "\n", encoding="utf-8")
    for case in cases:
        done = pd.read_csv(out)
        if np.logical_and.reduce([done[name] == value for name, value in case.items()]).any():
            continue
        rows = [{**case, **row} for row in run(case)]
        with out.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, columns, lineterminator="\n").writerows(rows)
        print(*rows, sep="\n", flush=True)
