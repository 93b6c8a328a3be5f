"""A virtual environment for each peer, since their pins exclude one another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from celldit.errors import CellditError
from peers.registry import Peer

__all__ = ["CannotRun", "prepare"]

_READY = ".celldit-ready"
_INSTALL_SECONDS = 1800


class CannotRun(CellditError, RuntimeError):
    """A method cannot be run here; a study goes on without it, and says why."""


def prepare(peer: Peer, folder: Path) -> Path:
    """Find or make the environment of a peer.

    An environment that is there is taken as it is, if the peer can be imported from it; a new one
    gets the pinned packages.

    Parameters
    ----------
    peer
        Whose.
    folder
        Holds one environment for each peer, under its short name.

    Returns
    -------
    pathlib.Path
        The environment's Python.

    Raises
    ------
    CannotRun
        If it cannot be installed, with the reason; the benchmark then goes on without it.
    """
    home = (folder / peer.name).absolute()
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    marker = home / _READY
    if marker.is_file() and marker.read_text(encoding="utf-8") == peer.pins:
        return python
    if not python.exists():
        base = _python(peer)
        _call([base, "-m", "venv", str(home)], peer, 300)
        _call([str(python), "-m", "pip", "install", "-q", *peer.packages], peer, _INSTALL_SECONDS)
    _call([str(python), "-c", f"import {peer.module}"], peer, 600)
    marker.write_text(peer.pins, encoding="utf-8")
    return python


def environment() -> dict[str, str]:
    """Variables for a peer: one thread, no accelerator, nothing of the caller's Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {
        **kept,
        **dict.fromkeys(threads, "1"),
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }


def last_line(text: str) -> str:
    """What went wrong, as the last line of a traceback says it."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def _python(peer: Peer) -> str:
    if f"{sys.version_info.major}.{sys.version_info.minor}" == peer.python:
        return sys.executable
    found = shutil.which(f"python{peer.python}")
    if found is None:
        raise CannotRun(
            f"{peer.title} needs Python {peer.python}, which is not on the path; install it, or "
            "make the environment by hand."
        )
    return found


def _call(command: list[str], peer: Peer, seconds: int) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRun(f"{peer.title} could not be installed ({error}).") from error
    if done.returncode:
        raise CannotRun(
            f"{peer.title} could not be installed: {last_line(done.stderr or done.stdout)}"
        )
