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

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "fuzz_files.py"
N = os.environ.get("CELLDIT_FUZZ_FILES", "40")
SEED = os.environ.get("CELLDIT_FUZZ_SEED", "20261129")


@pytest.mark.parametrize("kind", ["folders", "stores", "gene-sets", "settings", "json"])
def test_damaged_files(kind: str) -> None:
    run = [sys.executable, str(SCRIPT), kind, N, SEED]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the process crashed: {done.stderr[-2000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["foreign"] == []
    assert found["refused"] > 0
    assert found["refused"] + found.get("used", 0) == int(N)
    assert found["longest_s"] < 5
    assert found["peak_mb"] < 1000
