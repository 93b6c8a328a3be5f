"""Nothing in celldit opens a connection; data and gene sets come with the package."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NETWORK = {"aiohttp", "ftplib", "http", "httpx", "pooch", "requests", "socket", "urllib", "urllib3"}
#: The host's name stands in the message about another writer.
ALLOWED = {"celldit/io/locks.py": {"socket"}}

SESSION = """
import socket

def refuse(*arguments, **options):
    raise AssertionError(f"a connection was asked for: {arguments}")

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
for name in ("create_connection", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, refuse)

import celldit as cd

adata = cd.datasets.sciplex2()[::4].copy()
cd.datasets.gene_set_file("hallmark")
cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", size_factor_key="total_umis")
model = cd.CellDiT(adata, "modules")
model.train(0, enable_progress_bar=False)
model.save("model")
cd.CellDiT.load("model").predict(adata, perturbations="dexamethasone")
print("no connection")
"""


def test_a_whole_session_without_a_network(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SESSION],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("no connection"), done.stderr[-2000:]


def test_no_module_knows_how_to_reach_a_network() -> None:
    for path in sorted((ROOT / "celldit").rglob("*.py")):
        own = ALLOWED.get(path.relative_to(ROOT).as_posix(), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = {(node.module or "").split(".")[0]}
            else:
                continue
            assert not (names & NETWORK) - own, path


def test_nothing_unpickles() -> None:
    """No import of pickle and its kin, no torch.load, no numpy archives, no eval."""
    for path in sorted((ROOT / "celldit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                assert not names & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "np.load":  # of tables that users bring, never of a model
                    assert "allow_pickle=False" in ast.unparse(node), path
                    continue
                assert called not in {"torch.load", "eval", "exec"}, f"{path}: {called}"
