"""celldit through a terminal."""

from __future__ import annotations

from celldit.cli.app import app

__all__ = ["app"]
