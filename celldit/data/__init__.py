"""What an AnnData means: fields, the cell store, labels, doses and splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.data import splits
    from celldit.data.cells import Cells
    from celldit.data.disk.opening import open_store
    from celldit.data.disk.stored import StoredCells
    from celldit.data.fields import Fields, setup_anndata
    from celldit.data.leaks import check_no_leak
    from celldit.data.splits import split
    from celldit.data.store import CellStore

__all__ = [
    "CellStore",
    "Cells",
    "Fields",
    "StoredCells",
    "check_no_leak",
    "open_store",
    "setup_anndata",
    "split",
    "splits",
]

__getattr__, __dir__ = members_of(
    __name__,
    {
        "CellStore": "store",
        "Cells": "cells",
        "Fields": "fields",
        "StoredCells": "disk.stored",
        "check_no_leak": "leaks",
        "open_store": "disk.opening",
        "setup_anndata": "fields",
        "split": "splits",
        "splits": "splits",
    },
)
