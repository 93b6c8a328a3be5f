"""A peer as a method of the benchmark."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anndata as ad
from held_out import HeldOut

from celldit.errors import InputError, UnknownNameError
from peers.environment import CannotRun, environment, last_line, prepare
from peers.exchange import read_points, write_request
from peers.registry import PEERS, Peer

__all__ = ["peer_methods"]


def peer_methods(
    names: Sequence[str], folder: str | Path, *, steps: float = 1.0, minutes: float = 60.0
) -> dict[str, Callable[[HeldOut, int], dict[str, ad.AnnData]]]:
    """Published methods, by their titles.

    A peer gives a prediction for each of several points of its training, of which a study
    reports the best as judged by the held-out cells themselves: more than a user could have.

    Parameters
    ----------
    names
        From :data:`PEERS`.
    folder
        Where their virtual environments are, or shall be made.
    steps
        Factor on the length of training, for tests.
    minutes
        Most for one problem.

    Raises
    ------
    UnknownNameError
        If there is no such peer.
    """
    for name in names:
        if name not in PEERS:
            raise UnknownNameError.among("peer", name, PEERS)
    home = Path(folder)
    return {
        PEERS[name].title: partial(_predict, PEERS[name], home, steps, minutes) for name in names
    }


def _predict(
    peer: Peer, home: Path, steps: float, minutes: float, posed: HeldOut, seed: int
) -> dict[str, ad.AnnData]:
    python = prepare(peer, home)
    with tempfile.TemporaryDirectory(prefix="celldit-") as name:
        folder = Path(name)
        write_request(posed, folder, seed=seed, steps=steps)
        stopped = False
        try:
            done = subprocess.run(
                [str(python), str(peer.script), str(folder)],
                capture_output=True,
                text=True,
                timeout=60 * minutes,
                env=environment(),
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            # What it predicted until then is judged.
            if not list((folder / "points").glob("*.h5ad")):
                raise CannotRun(f"{peer.title} took more than {minutes:g} minutes.") from None
            stopped = True
        else:
            if done.returncode:
                raise CannotRun(f"{peer.title} failed: {last_line(done.stderr)}")
        try:
            points = read_points(posed, folder)
        except InputError as error:
            raise CannotRun(f"{peer.title}: {error}") from error
        for cells in points.values() if stopped else ():
            cells.uns["stopped_after_minutes"] = minutes
        return points
