"""Files damaged at random, read by a process of its own, which a crash would end.

``CELLDIT_FUZZ_FILES=1000`` asks for more than the 40 of each kind of an ordinary run,
``CELLDIT_FUZZ_SEED`` for others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "fuzz_files.py"
N = os.environ.get("CELLDIT_FUZZ_FILES", "40")
SEED = os.environ.get("CELLDIT_FUZZ_SEED", "20261129")


KINDS = ("folders", "stores", "gene-sets", "settings", "json")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What happened with each kind of file, in one process."""
    run = [sys.executable, str(SCRIPT), ",".join(KINDS), N, SEED]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"crashed after {len(lines)} kinds: {done.stderr[-2000:]}"
    return {line["kind"]: line for line in lines}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str, found: dict[str, Any]) -> None:
    of_kind = found[kind]
    print(of_kind)
    assert of_kind["foreign"] == []
    assert of_kind["refused"] > 0
    assert of_kind["refused"] + of_kind.get("used", 0) == int(N)
    assert of_kind["longest_s"] < 5
    assert of_kind["peak_mb"] < 1000
