"""Running the benchmark: one file for each cell of its table, so that it can be resumed."""

from __future__ import annotations

import hashlib
import json
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

import celldit
from celldit.arguments import check_plain
from celldit.errors import CellditError, FileError, UnknownNameError
from celldit.evaluation.benchmark.machine import describe_machine
from celldit.evaluation.benchmark.methods import Method
from celldit.evaluation.benchmark.problems import Posed, Problem, pose
from celldit.evaluation.benchmark.table import render_table
from celldit.evaluation.compare import CEILING, compare
from celldit.io.files import whole_file, write_text

CELLDIT = "celldit"
METRICS = ("pearson", "nmse", "energy")
FORMAT = 1
_CELLS, _NAME = "cells", "benchmark"

#: Called after each cell: how many are done, how many there are, and the cell.
Report = Callable[[int, int, dict[str, Any]], None]


def run(
    problems: Sequence[Problem],
    methods: Mapping[str, Method],
    output: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    overwrite: bool = False,
    report: Report | None = None,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run every method on every problem with every seed, and write the tables.

    What an earlier run finished is not computed again, unless the files say that it was another
    problem.

    Parameters
    ----------
    problems
        What to hold out of which data set.
    methods
        By name.
    output
        Folder: ``cells/*.json``, one for each problem, method and seed; ``benchmark.json``,
        ``benchmark.csv`` and ``benchmark.md``, made from all of them, and each written whole.
    seeds
        Of training, prediction and of the halves of the ceiling.
    overwrite
        Whether to compute again what is there.
    report
        Called after each cell.
    data
        AnnData by the name of the data set, set up, in place of the bundled ones.

    Returns
    -------
    dict
        What ``benchmark.json`` holds.

    Raises
    ------
    FileError
        If the folder holds something else, or cannot be written.
    """
    folder = Path(output)
    check_folder(folder)
    source_fingerprint()  # the code that runs is the code of now, whatever is edited meanwhile
    total = len(problems) * len(methods) * len(seeds)
    done = 0
    for problem in problems:
        posed: Posed | None = None
        for seed in seeds:
            for name, method in methods.items():
                path = folder / _CELLS / f"{_slug(problem, name, seed)}.json"
                cell = None if overwrite else _finished(path, problem, name, seed)
                if cell is None:
                    posed = posed or pose(problem, (data or {}).get(problem.dataset))
                    cell = _compute(problem, posed, name, method, seed)
                    write_text(path, json.dumps(cell, indent=1) + "\n")
                done += 1
                if report is not None:
                    report(done, total, cell)
    results = collect(folder)
    write_text(folder / f"{_NAME}.json", json.dumps(results, indent=1) + "\n")
    with whole_file(folder / f"{_NAME}.csv") as path:
        _flat(results).to_csv(path, index=False)
    write_text(folder / f"{_NAME}.md", render_table(results))
    return results


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something other than a benchmark, or is none."""
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file, where the benchmark needs a folder; name another.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _CELLS).is_dir():
        raise FileError(
            f"{folder} holds files that are not of a benchmark; name an empty or a new folder."
        )


def collect(folder: str | Path) -> dict[str, Any]:
    """Gather the finished cells of a benchmark folder, in a fixed order."""
    cells = [_read(path) for path in sorted((Path(folder) / _CELLS).glob("*.json"))]
    found = [cell for cell in cells if cell is not None]
    return {
        "format": FORMAT,
        "celldit": celldit.__version__,
        "machines": sorted({cell.pop("machine") for cell in found}),
        "dates": sorted({cell.pop("date") for cell in found}),
        "results": found,
    }


@cache
def source_fingerprint() -> str:
    """Twelve digits that name the code that makes the results, as it was when first asked."""
    package = Path(celldit.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        # How results are shown changes nothing about them.
        if path.relative_to(package).parts[0] not in ("cli", "pl"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _compute(
    problem: Problem, posed: Posed, name: str, method: Method, seed: int
) -> dict[str, Any]:
    cell = {
        "dataset": problem.dataset,
        "problem": problem.name,
        "group": problem.group,
        "by": problem.by,
        "held_out": problem.held_out,
        **({"source": problem.source} if problem.source else {}),
        "method": name,
        "seed": seed,
        "code": source_fingerprint(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
    }
    started = time.perf_counter()
    try:
        predicted = method(replace(posed, truth=posed.truth[:0].copy()), seed)
    except UnknownNameError as error:
        # A method that knows nothing of what is asked has no row; that is a result, too.
        return {**cell, "skipped": str(error)}
    cell["seconds"] = round(time.perf_counter() - started, 2)
    return {**cell, **_scores(posed, name, predicted, seed)}


def _scores(posed: Posed, name: str, predicted: ad.AnnData, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*scores are missing.*")
        for key, equal in (("all_cells", False), ("equal_cells", True)):
            table = compare(
                {name: predicted},
                posed.truth,
                posed.controls,
                metrics=METRICS,
                equal_cells=equal,
                seed=seed,
            )
            found[key] = _numbers(table.loc[name])
            found["ceiling"] = _numbers(table.loc[CEILING])
    found["n_conditions"] = int(max(table.attrs["n_conditions"].values()))
    return found


def _numbers(row: pd.Series) -> dict[str, float | None]:
    return {m: None if pd.isna(row[m]) else round(float(row[m]), 6) for m in METRICS}


def _finished(path: Path, problem: Problem, name: str, seed: int) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        cell = _read(path)
    except CellditError:
        return None  # a damaged file is a cell that was not finished
    wanted = (problem.dataset, problem.name, problem.held_out, problem.source or None, name, seed)
    keys = ("dataset", "problem", "held_out", "source", "method", "seed")
    return cell if cell is not None and tuple(cell.get(k) for k in keys) == wanted else None


def _read(path: Path) -> dict[str, Any]:
    check_plain(path)
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged ({error}); delete it and run again.") from error
    if not isinstance(cell, dict) or not {"dataset", "method", "machine", "date"} <= set(cell):
        raise FileError(f"{path} is no result of the benchmark; delete it and run again.")
    return cell


def _slug(problem: Problem, method: str, seed: int) -> str:
    text = f"{problem.dataset} {problem.name} {method} {seed}"
    return re.sub(r"[^A-Za-z0-9+]+", "_", text)


def _flat(results: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for cell in results["results"]:
        row = {k: v for k, v in cell.items() if not isinstance(v, (dict, list))}
        row["held_out"] = "; ".join(cell["held_out"])
        for key in ("all_cells", "equal_cells", "ceiling"):
            row.update({f"{m}_{key}": v for m, v in cell.get(key, {}).items()})
        rows.append(row)
    return pd.DataFrame(rows)
