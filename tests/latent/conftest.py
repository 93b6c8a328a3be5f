"""Cells of the simulated screen, for the tests of the latent."""

from __future__ import annotations

import anndata as ad
import pytest

from celldit.data.cells import Cells
from celldit.data.fields import Fields


@pytest.fixture(scope="session")
def cells(_tiny_screen: ad.AnnData) -> Cells:
    return Cells.from_anndata(_tiny_screen, Fields.from_anndata(_tiny_screen))
