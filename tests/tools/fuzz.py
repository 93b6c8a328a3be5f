"""Run the whole of the fuzzing, and write what happened to ``docs/results/fuzz.csv``.

``python tests/tools/fuzz.py`` takes 3,000 AnnData, 1,000 model folders and 500 of each other kind
of file, each kind in a process of its own, which takes about twenty minutes. It ends with an error
if a process crashed, an error was not celldit's own, anything took 5 s, or a process 1 GB.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "fuzz.csv"
SEED = 20261130
N_ANNDATA = 3000
FILES = {"folders": 1000, "stores": 500, "gene-sets": 500, "settings": 500, "json": 500}
COLUMNS = ("kind", "n", "seed", "refused", "used", "trained", "no_input", "foreign", "longest_s")
COLUMNS += ("peak_mb", "date", "machine")


def run(command: list[str], **environment: str) -> dict[str, Any]:
    """The line of JSON that a command prints."""
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def row_of(found: dict[str, Any]) -> dict[str, Any]:
    """What happened, under the names of the columns."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return {
        **{name: found.get(name, "") for name in COLUMNS},
        "used": found.get("used", found.get("usable", 0)),
        "no_input": found.get("not an AnnData", ""),
        "foreign": len(found.get("foreign", [])),
        "date": date.today().isoformat(),
        "machine": machine,
    }


def quoted(row: dict[str, Any]) -> str:
    """A row of the table as ``docs/promises.md`` quotes it."""
    trained = f" ({row['trained']} of them trained)" if row["trained"] else ""
    no_input = f", {row['no_input']} no AnnData" if row["no_input"] else ""
    return (
        f"| {row['kind']} | {int(row['n']):,} | {row['seed']} | {row['refused']} refused, "
        f"{row['used']} used{trained}{no_input}, {row['foreign']} foreign errors | "
        f"{row['longest_s']} s | {row['peak_mb']} MB |"
    )


def main() -> None:
    """Run each kind, and write the table when all of them went well."""
    script = str(Path(__file__).with_name("fuzz_files.py"))
    rows = []
    for kind, n in FILES.items():
        found = run([script, kind, str(n), str(SEED)])
        print(json.dumps(found), flush=True)
        rows.append(row_of(found))
    test = ["-m", "pytest", "-q", "-s", "tests/robustness/test_fuzzed_anndata.py"]
    found = run(test, CELLDIT_FUZZ=str(N_ANNDATA), CELLDIT_FUZZ_SEED=str(SEED))
    print(json.dumps(found), flush=True)
    rows.insert(0, row_of(found))
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("\n".join(map(quoted, rows)))
    bad = [r["kind"] for r in rows if r["foreign"] or r["longest_s"] >= 5 or r["peak_mb"] >= 1000]
    if bad:
        raise SystemExit(f"Not as promised: {', '.join(bad)}.")


if __name__ == "__main__":
    main()
