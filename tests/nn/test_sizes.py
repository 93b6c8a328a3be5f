"""Sizes by name."""

from __future__ import annotations

import anndata as ad
import pytest

from celldit import CellDiT
from celldit.errors import UnknownNameError
from celldit.nn.dit import SIZES, DiTConfig, size_of


@pytest.mark.parametrize("name", ["celldit-B", "B", "b", "CELLDIT-b"])
def test_a_size_has_a_short_name(name: str) -> None:
    assert size_of(name) is SIZES["celldit-B"]


def test_an_unknown_size_is_refused_with_the_known_ones(tiny_screen: ad.AnnData) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown size 'M' .*'celldit-S', 'celldit-B'"):
        size_of("M")
    with pytest.raises(UnknownNameError, match="Unknown size 'huge'"):
        CellDiT(tiny_screen, "modules", dit="huge")


def test_a_model_takes_a_size_by_name(tiny_screen: ad.AnnData) -> None:
    model = CellDiT(tiny_screen, "modules", dit="S")
    assert model._model.design.network == DiTConfig()
