"""Guides of one target become that target, and nothing else loses its name."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import pytest
from hypothesis import given
from hypothesis import strategies as st

import celldit as cd
from celldit.data.guides import merge_guide_labels
from celldit.errors import InputError, UnknownNameError


@pytest.mark.parametrize(
    ("label", "target"),
    [
        ("STAT1g2", "STAT1"),
        ("STAT1_sg1", "STAT1"),
        ("STAT1sg12", "STAT1"),
        ("STAT1-gRNA-3", "STAT1"),
        ("STAT1_guide_2", "STAT1"),
        ("STAT1_2", "STAT1"),
        ("Stat1g1", "Stat1"),
        ("IFNGR1g1+NT", "IFNGR1"),
        ("NTg4+IFNGR1g1", "IFNGR1"),
        ("NTg4", "control"),
        ("NT", "control"),
        ("non-targeting_03", "control"),
        ("Non-Targeting", "control"),
        ("control", "control"),
        ("ctrl+ctrl", "control"),
        ("STAT1g1+STAT1g2", "STAT1"),
        ("JAK2g1+IRF1g2", "IRF1+JAK2"),
    ],
)
def test_usual_names(label: str, target: str) -> None:
    assert merge_guide_labels([label]).tolist() == [target]


@pytest.mark.parametrize("gene", ["ABCG2", "Abcg2", "NKX2-1", "HLA-A", "IRF1", "H2-K1", "CD86"])
def test_genes_keep_their_names(gene: str) -> None:
    assert merge_guide_labels([gene, f"{gene}_sg1"]).tolist() == [gene, gene]


names = st.from_regex(r"[A-Z]{3,5}[0-9]?", fullmatch=True).filter(
    lambda n: n.casefold() not in ("ntc", "ctrl")
)


@given(st.lists(names, min_size=1, max_size=3), st.data())
def test_order_and_number_of_guides_do_not_matter(targets: list[str], data: st.DataObject) -> None:
    guides = [f"{t}g{data.draw(st.integers(1, 99))}" for t in targets]
    shuffled = data.draw(st.permutations([*guides, "NTg1"]))
    one, two = merge_guide_labels(["+".join(guides), "+".join(shuffled)])
    assert one == two == "+".join(sorted(set(targets)))


def test_a_pattern_of_ones_own() -> None:
    labels = ["kd.STAT1.17|kd.JAK2.1", "kd.luciferase.3"]
    found = merge_guide_labels(
        labels,
        pattern=r"kd\.(?P<target>\w+)\.\d+",
        control="ctl",
        control_guides=["luciferase"],
        sep="|",
    )
    assert found.tolist() == ["JAK2|STAT1", "ctl"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "not a regular expression"), (r"(.+)g\d", "no group called target")],
)
def test_patterns_that_cannot_be_used(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge_guide_labels(["A"], pattern=pattern)


def test_an_empty_target_and_a_missing_label() -> None:
    with pytest.raises(InputError, match="finds no target in the guide 'sg1'"):
        merge_guide_labels(["sg1"], pattern=r"(?P<target>.*)sg\d")
    with pytest.raises(InputError, match="no guide label"):
        merge_guide_labels([None])


def test_the_column_is_written_and_set_up(simulate_screen: Callable[..., ad.AnnData]) -> None:
    adata = simulate_screen(n_cells=60, labels=("NTg1", "NTg2", "Ag1", "Ag2", "Bg1+NTg1"))
    before = adata.obs["perturbation"].copy()
    cd.pp.merge_guides(adata, "perturbation")
    assert adata.obs["target"].value_counts().to_dict() == {"control": 24, "A": 24, "B": 12}
    assert adata.obs["perturbation"].equals(before)
    cd.CellDiT.setup_anndata(adata, perturbation_key="target")
    assert cd.CellDiT(adata, "modules").perturbations == ("A", "B")
    with pytest.raises(UnknownNameError, match="perturbation"):
        cd.pp.merge_guides(adata, "perturbations")
    with pytest.raises(InputError, match="would overwrite the guides"):
        cd.pp.merge_guides(adata, "perturbation", key_added="perturbation")
