"""A report on a prediction: an HTML file that needs no network, its numbers as CSV and JSON."""

from __future__ import annotations

from celldit.report.report import report

__all__ = ["report"]
