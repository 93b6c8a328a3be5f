"""Where ``EditConfig`` was before it moved to :mod:`celldit.inference.maps.edit`."""

from __future__ import annotations

from celldit.lazy import moved

__getattr__ = moved(__name__, {"EditConfig": "celldit.inference.maps.edit"})
