"""What an AnnData means: fields, the cell store, labels, doses and splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.data import splits
    from celldit.data.cells import Cells
    from celldit.data.fields import Fields, setup_anndata
    from celldit.data.splits import check_no_leak, split

__all__ = ["Cells", "Fields", "check_no_leak", "setup_anndata", "split", "splits"]

__getattr__, __dir__ = members_of(
    __name__,
    {
        "Cells": "cells",
        "Fields": "fields",
        "check_no_leak": "splits",
        "setup_anndata": "fields",
        "split": "splits",
        "splits": "splits",
    },
)
