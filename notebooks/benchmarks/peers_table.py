"""Write the tables of published methods in docs/evaluation.md from docs/results/peers.csv.

    python notebooks/benchmarks/peers_table.py

The numbers are of the first edition, which judged a method at several points of its training;
`notebooks/benchmarks/side_by_side.py` runs published methods now.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pages import ROOT, put

MEASURES = ("pearson", "nmse", "energy")
CEILING = "ceiling"


def shown(rows: pd.DataFrame, suffix: str) -> str:
    """The measures, in the mean over seeds with their standard deviation."""
    if rows.empty:
        return "-"
    words = []
    for measure in MEASURES:
        values = rows[f"{measure}_{suffix}"]
        spread = values.std(ddof=1)
        # A method without chance in it has no spread to show.
        varies = np.isfinite(spread) and spread >= 0.0005
        words.append(f"{values.mean():.3f}" + (f" ± {spread:.3f}" if varies else ""))
    return " / ".join(words)


def block(results: pd.DataFrame, suffix: str) -> str:
    """A row for each method, a column for each problem."""
    problems = list(results.groupby(["dataset", "problem"]))
    lines = ["| method | " + " | ".join(f"{a}: {b}" for (a, b), _ in problems) + " |"]
    lines.append("| --- " * (len(problems) + 1) + "|")
    methods = list(dict.fromkeys(results["method"]))
    for method in methods + [CEILING] * (suffix == "equal_cells"):
        cells = [
            shown(rows[rows["method"] == "no change"], CEILING)
            if method == CEILING
            else shown(rows[rows["method"] == method], suffix)
            for _, rows in problems
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table() -> str:
    """The published methods beside celldit, on the problems that they were given."""
    results = pd.read_csv(ROOT / "docs" / "results" / "peers.csv")
    stopped = results[results["stopped_after_minutes"].notna()]
    listed = "\n".join(
        f"- {row.dataset}, {row.method}: after {row.stopped_after_minutes:g} minutes, best at "
        f"{row.point}"
        for row in stopped.itertuples()
    )
    dates = " and ".join(sorted(set(results["date"])))
    seeds = ", ".join(str(seed) for seed in sorted(set(results["seed"])))
    return (
        "Pearson r of the mean shift / squared error over squared effect / energy distance, "
        "averaged over what was held out, all cells:\n\n"
        f"{block(results, 'all_cells')}\n\n"
        "The same with as many cells for every method as the ceiling has, which is one half of the "
        "measured cells as a prediction of the other half:\n\n"
        f"{block(results, 'equal_cells')}\n\n"
        f"Stopped before its last point, so more might have been seen:\n\n{listed}\n\n"
        f"{dates}; 2 cores; seeds {seeds} of celldit, 0 of the others.\n"
    )


if __name__ == "__main__":
    put("docs/evaluation.md", "peers", table())
