"""A page to explore predicted effects with, in one file that needs no network."""

from __future__ import annotations

from celldit.report.explore.write import explore

__all__ = ["explore"]
