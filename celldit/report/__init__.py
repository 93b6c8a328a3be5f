"""Pages of one file that need no network: a report on a prediction, and effects to explore."""

from __future__ import annotations

from celldit.report.explore import explore
from celldit.report.report import report

__all__ = ["explore", "report"]


def __dir__() -> list[str]:
    return list(__all__)
