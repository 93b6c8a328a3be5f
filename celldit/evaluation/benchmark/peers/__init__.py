"""Published methods, each run in a virtual environment of its own, over files."""

from __future__ import annotations

from celldit.evaluation.benchmark.peers.registry import PEERS, Peer
from celldit.evaluation.benchmark.peers.run import peer_methods

__all__ = ["PEERS", "Peer", "peer_methods"]
