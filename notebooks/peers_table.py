"""Write the table of published methods in docs/evaluation.md from docs/results/peers.json.

    python notebooks/peers_table.py

The results are of the benchmark's first edition, which judged a method at several points of its
training; `notebooks/benchmarks/side_by_side.py` runs published methods now.
"""

from __future__ import annotations

import json
from pathlib import Path

from celldit.evaluation.benchmark import render_table

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- peers:begin -->", "<!-- peers:end -->"


def table() -> str:
    """The published methods beside celldit, on the problems that they were given."""
    peers, own = (
        json.loads((ROOT / "docs" / "results" / name).read_text(encoding="utf-8"))
        for name in ("peers.json", "benchmark.json")
    )
    posed = {(cell["dataset"], cell["problem"]) for cell in peers["results"]}
    added = [cell for cell in own["results"] if (cell["dataset"], cell["problem"]) in posed]
    merged = {
        **peers,
        "machines": sorted({*peers["machines"], *own["machines"]}),
        "dates": sorted({*peers["dates"], *own["dates"]}),
        "results": [*peers["results"], *added],
    }
    stopped = {
        f"- {c['dataset']}, {c['method']}: after {c['stopped_after_minutes']:g} minutes; judged at "
        f"{', '.join(c['points'])}"
        for c in peers["results"]
        if "stopped_after_minutes" in c
    }
    head, mark, rest = render_table(merged).partition("Not run:")
    listed = "\n".join(sorted(stopped))
    note = f"Stopped before its last point, so more might have been seen:\n\n{listed}\n\n"
    return f"{head}{note}{mark}{rest}"


if __name__ == "__main__":
    page = ROOT / "docs" / "evaluation.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    page.write_text(f"{before}{START}\n{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")
