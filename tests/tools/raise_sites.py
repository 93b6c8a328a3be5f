"""List the places where celldit raises an error of its own that no test has reached.

Run the tests under coverage, then this::

    coverage run --source celldit -m pytest -m ""
    python tests/tools/raise_sites.py

Needs the package ``coverage``. Prints the statement coverage without the command line, and ends
with an error if a place is left.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).resolve().parents[2]
OWN = {"CellditError", "FileError", "InputError", "NotTrainedError", "TrainingError"}
OWN |= {"CannotRun", "UnknownNameError"}


def raise_sites(path: Path) -> list[ast.Raise]:
    """Statements of a file that raise one of celldit's errors."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).partition(".")[0]
            if name in OWN:
                found.append(node)
    return found


def main() -> None:
    """Compare the sites with what was executed."""
    coverage = Coverage()
    coverage.load()
    n_sites = n_statements = n_missing = 0
    left = []
    for path in sorted((ROOT / "celldit").rglob("*.py")):
        _, statements, _, missing, _ = coverage.analysis2(str(path))
        if "cli" not in path.relative_to(ROOT).parts:
            n_statements, n_missing = n_statements + len(statements), n_missing + len(missing)
        for node in raise_sites(path):
            n_sites += 1
            if node.lineno in missing:
                left.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:110]}")
    print("\n".join(left))
    print(f"{n_sites - len(left)} of {n_sites} errors are raised by a test.")
    print(f"{100 * (1 - n_missing / n_statements):.1f}% of statements without the command line.")
    if left:
        sys.exit(1)


if __name__ == "__main__":
    main()
