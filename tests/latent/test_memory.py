"""What a training step of the set autoencoder takes of memory, in a process of its own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["modules", "genes"])
def test_ten_thousand_genes_fit_in_two_gigabytes(tokenizer: str, tmp_path: Path) -> None:
    out = tmp_path / "memory.csv"
    script = REPOSITORY / "notebooks" / "benchmark_tokenizers.py"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(script), "memory", tokenizer, str(out)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    with out.open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["n_cells"], row["n_genes"]) == ("256", "10000")
    assert int(row["peak_mb"]) < 2_000
