"""Guides of one target become that target, and nothing else loses its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import pytest
from hypothesis import given
from hypothesis import strategies as st

import celldit as cd
from celldit.data.labels.guides import GuideNames, merge_guide_labels
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
    assert targets([label]) == [target]


#: Names of guides in published libraries, and what a person would say they target.
LIBRARIES = {
    "STAT1": "STAT1-2 sgSTAT1-1 sgSTAT1_1 STAT1.3 STAT1#1 STAT1|2 p_sgCREB1_2:CREB1 sgRNA_STAT1_4 "
    "STAT1_P1P2 STAT1_+_191878500.23-P1P2 STAT1_-_191878500.23-P1 ATF4_ATF4-1:ATF4 "
    "STAT1_ACGTACGTACGTACGTACGT STAT1-ACGTACGTACGTACGTACG STAT1_crRNA2 HLA-A_2:HLA-A "
    "NKX2-1_1:NKX2-1 NKX2-1-1:NKX2-1 HLA-DRB1:HLA-DRB1 MT-CO1:MT-CO1 Abcg2:Abcg2 Sgk1:Sgk1 "
    "IGHV3-23:IGHV3-23 AC003665.1:AC003665.1 Nkx2-1:Nkx2-1",
    "control": "NT NT-1 NT_12 NTC-05 non-targeting_00012 non-targeting-3 NO-TARGET_7 NegCtrl0 "
    "sgNTC1 neg_ctrl_3 negative_control_1 INTERGENIC1144056 intergenic_1 AAVS1_2 CTRL00698 "
    "ONE_NON-GENE_SITE_25 Non-Targeting safe_targeting_4 SAFE_1 scrambled_1 luciferase_1 sgLacZ-2 "
    "EGFP_3 NonTargetingControlGuideForHuman_0001 NonTargeting_Human_0042 NO_SITE_3 "
    "Human_nonTargeting_3",
}


@pytest.mark.parametrize(
    ("guide", "target"),
    [
        tuple(entry.rsplit(":", 1)) if ":" in entry else (entry, target)
        for target, entries in LIBRARIES.items()
        for entry in entries.split()
    ],
)
def test_names_of_common_libraries(guide: str, target: str) -> None:
    assert targets([guide]) == [target]


def test_numbers_that_belong_to_genes_are_looked_up() -> None:
    names = GuideNames(is_gene=lambda name: name in ("ABC-7", "ABC"))
    assert targets(["ABC-7", "ABC-8"], names=names) == ["ABC-7", "ABC"]


@pytest.mark.parametrize("joiner", [";", ",", "|", "&", "+"])
def test_what_joins_guides_is_found(joiner: str) -> None:
    labels = [f"STAT1_1{joiner}JAK2_2", f"JAK2_1 {joiner} NT_2", "STAT1_+_19187.23-P1P2"]
    assert targets(labels) == ["JAK2+STAT1", "JAK2", "STAT1"]
    other = ";" if joiner != ";" else ","
    with pytest.raises(InputError, match=f"joined by '\\{joiner}'.*pass sep="):
        targets(labels, sep=other)


def test_vectors_of_two_guides() -> None:
    labels = ["KLF1_MAP2K6__KLF1_MAP2K6", "KLF1_NegCtrl0__KLF1_NegCtrl0"]
    labels.append("NegCtrl0_NegCtrl1__NegCtrl0_NegCtrl1")
    assert targets(labels) == ["KLF1+MAP2K6", "KLF1", "control"]


@pytest.mark.parametrize("gene", ["ABCG2", "Abcg2", "NKX2-1", "HLA-A", "IRF1", "H2-K1", "CD86"])
def test_genes_keep_their_names(gene: str) -> None:
    assert targets([gene, f"{gene}_sg1"]) == [gene, gene]


def targets(labels: list[str], **asked: Any) -> list[str]:
    return merge_guide_labels(labels, **asked)["target"].tolist()


names = st.from_regex(r"[A-Z]{3,5}[0-9]?", fullmatch=True).filter(
    lambda n: n.casefold() not in ("ntc", "ctrl", "scr", "gfp", "egfp", "safe")
)


@given(st.lists(names, min_size=1, max_size=3), st.data())
def test_order_and_number_of_guides_do_not_matter(aims: list[str], data: st.DataObject) -> None:
    guides = [f"{t}g{data.draw(st.integers(1, 99))}" for t in aims]
    shuffled = data.draw(st.permutations([*guides, "NTg1"]))
    one, two = targets(["+".join(guides)]) + targets(["+".join(shuffled)])
    assert one == two == "+".join(sorted(set(aims)))


def test_a_pattern_of_ones_own() -> None:
    labels = ["kd.STAT1.17|kd.JAK2.1", "kd.luciferase.3"]
    own = GuideNames(r"kd\.(?P<target>\w+)\.\d+", ["luciferase"])
    assert targets(labels, names=own, control="ctl", sep="|") == ["JAK2+STAT1", "ctl"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "not a regular expression"), (r"(.+)g\d", "no group called target")],
)
def test_patterns_that_cannot_be_used(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GuideNames(pattern)


def test_an_empty_target_and_a_missing_label() -> None:
    with pytest.raises(InputError, match="finds no target in the guide 'sg1'"):
        merge_guide_labels(["sg1"], GuideNames(r"(?P<target>.*)sg\d"))
    with pytest.raises(InputError, match="no guide label"):
        merge_guide_labels([None])


def test_the_column_is_written_and_set_up(simulate_screen: Callable[..., ad.AnnData]) -> None:
    adata = simulate_screen(n_cells=60, labels=("NTg1", "NTg2", "Ag1", "Ag2", "Bg1+NTg1"))
    before = adata.obs["perturbation"].copy()
    table = cd.pp.merge_guides(adata, "perturbation")
    assert table.set_index("guide")["target"].to_dict() == {
        "NTg1": "control",
        "NTg2": "control",
        "Ag1": "A",
        "Ag2": "A",
        "Bg1+NTg1": "B",
    }
    assert table["n_cells"].tolist() == [12] * 5
    assert adata.obs["target"].value_counts().to_dict() == {"control": 24, "A": 24, "B": 12}
    assert adata.obs["perturbation"].equals(before)
    cd.CellDiT.setup_anndata(adata, perturbation_key="target")
    assert cd.CellDiT(adata, "modules").perturbations == ("A", "B")
    with pytest.raises(UnknownNameError, match="perturbation"):
        cd.pp.merge_guides(adata, "perturbations")
    with pytest.raises(InputError, match="would overwrite the guides"):
        cd.pp.merge_guides(adata, "perturbation", key_added="perturbation")


def test_what_is_left_is_told(simulate_screen: Callable[..., ad.AnnData]) -> None:
    labels = ("NT_1", "STAT1", "STAT1_2", "plasmid_x", "Abcg2")
    adata = simulate_screen(n_cells=60, labels=labels)
    with pytest.warns(UserWarning, match=r"1 labels .* stay as they are \('plasmid_x'\)"):
        table = cd.pp.merge_guides(adata, "perturbation")
    assert table["guide"][~table["changed"]].tolist() == ["STAT1", "plasmid_x", "Abcg2"]


def test_what_is_half_cut_is_told(simulate_screen: Callable[..., ad.AnnData]) -> None:
    labels = ("NT_1", "STAT1 guide 2", "JAK2_KO_1", "chr1_intergenic_3", "NKX2-1_1")
    adata = simulate_screen(n_cells=60, labels=labels)
    said = (
        r"2 labels .*'JAK2_KO_1' to 'JAK2_KO'; 'chr1_intergenic_3' to 'chr1_intergenic'\); if more"
    )
    with pytest.warns(UserWarning, match=said):
        table = cd.pp.merge_guides(adata, "perturbation")
    assert table["target"].tolist()[1] == "STAT1"


@pytest.mark.parametrize("joiner", [";", "|", "+"])
def test_setup_takes_what_was_merged(
    simulate_screen: Callable[..., ad.AnnData], joiner: str
) -> None:
    adata = simulate_screen(
        n_cells=60, labels=("NT_1", "STAT1_1", "JAK2_1", f"STAT1_2{joiner}JAK2_1")
    )
    cd.pp.merge_guides(adata, "perturbation")
    cd.CellDiT.setup_anndata(adata, perturbation_key="target")
    assert cd.CellDiT(adata, "modules").perturbations == ("JAK2", "STAT1")
