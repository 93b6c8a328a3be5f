"""Where ``UNetConfig`` was before it moved to :mod:`celldit.nn.comparators`."""

from __future__ import annotations

from celldit.lazy import moved

__getattr__ = moved(__name__, {"UNetConfig": "celldit.nn.comparators"})
