"""Published methods, each run in a virtual environment of its own, over files."""

from __future__ import annotations

from peers.registry import PEERS, Peer
from peers.run import peer_methods

__all__ = ["PEERS", "Peer", "peer_methods"]
