"""What an AnnData means: fields, the cell store, labels, doses and splits."""

from __future__ import annotations

from celldit.data import splits
from celldit.data.cells import Cells
from celldit.data.fields import Fields, setup_anndata
from celldit.data.splits import check_no_leak, split

__all__ = ["Cells", "Fields", "check_no_leak", "setup_anndata", "split", "splits"]
