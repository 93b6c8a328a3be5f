"""Labels that may not mean what they would be taken for are seen before any is split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.data import Fields, open_store
from celldit.data.cells import Cells
from celldit.effects.tables.elsewhere import Elsewhere
from celldit.errors import InputError, UnknownNameError
from celldit.inference.request import labels_of


def cells(labels: Sequence[str], n: int = 6) -> ad.AnnData:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"perturbation": list(labels) * n})
    obs.index = obs.index.astype(str)
    counts = sparse.csr_matrix(rng.poisson(2.0, (len(obs), 5)) + 1.0)
    return ad.AnnData(counts.astype(np.float32), obs=obs)


def warned(labels: Sequence[str], **asked: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cd.CellDiT.setup_anndata(
            cells(labels), perturbation_key="perturbation", **{"control": labels[0], **asked}
        )
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    "labels",
    [
        ["vehicle", "(+)-AB1", "drugC"],
        ["vehicle", "(+|-)-D7", "(+)-X", "[+]Y"],
        ["vehicle", "Ca2+", "drugC"],
        ["vehicle", "+A", "A"],
        ["vehicle", "{a+b}c", "A+B"],
    ],
)
def test_names_that_hold_the_separator_are_refused(labels: list[str]) -> None:
    adata = cells(labels)
    with pytest.raises(InputError, match=r"belongs to the names.*perturbation_sep=';'"):
        cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="vehicle")
    assert "celldit" not in adata.uns
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="vehicle", perturbation_sep=";"
    )
    assert set(cd.CellDiT(adata, "modules").perturbations) == set(labels) - {"vehicle"}


def test_three_examples_are_shown() -> None:
    with pytest.raises(InputError) as caught:
        warned(["v", "(+)-A", "(+)-B", "(+)-C", "(+)-D"])
    assert "'(+)-C' into '(' and ')-C' and 1 more" in str(caught.value)
    assert "'(+)-D'" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "is_doubtful"),
    [
        (["control", "CD4+ T-cell stim", "CD8+ T-cell stim"], True),
        (["control", "trimethoprim+sulfamethoxazole", "DrugX"], True),
        (["control", "A", "B", "A+B", "Na+/K+ block"], True),
        (["control", "A", "B", "A+B"], False),
        (["control", "A", "A+B", "C+D"], False),
        (["control", "A+B", "A+C", "B+C"], False),
        (["control", "A + B", "B", "A"], False),
    ],
)
def test_fragments_that_are_never_labels(labels: list[str], is_doubtful: bool) -> None:
    said = warned(labels)
    assert any("into what is never a label itself" in s for s in said) == is_doubtful, said
    assert all("perturbation_sep=" in s for s in said)


@pytest.mark.parametrize("joiner", ["_", ";", ",", "|", "&", "/", ":", "-", " ", "__", " & ", ", "])
def test_combinations_joined_otherwise(joiner: str) -> None:
    labels = ["control", "AA", "BB", "CC", f"AA{joiner}BB", f"BB{joiner}CC", f"AA{joiner}control"]
    (said,) = warned(labels)
    stripped = joiner if joiner.isspace() else joiner.strip()
    assert f"3 labels are other labels joined by {stripped!r}" in said
    assert f"pass perturbation_sep={stripped!r}" in said
    assert f"'AA{joiner}BB', 'BB{joiner}CC', 'AA{joiner}control'" in said
    adata = cells(labels)
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", perturbation_sep=stripped)
    assert cd.CellDiT(adata, "modules").perturbations == ("AA", "BB", "CC")


@pytest.mark.parametrize(
    "label", ["nan", "NaN", "<NA>", "unassigned", "Unassigned ", "multiplet", "Negative", "doublet"]
)
def test_labels_that_say_nothing_is_known(label: str) -> None:
    (said,) = warned(["control", "A", label])
    assert "not known what was done" in said
    assert repr(label.strip()) in said


def test_the_remedy_of_unknown_labels_works() -> None:
    adata = cells(["control", "A", "nan", "multiplet"])
    with pytest.warns(UserWarning, match="not known") as caught:
        cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    scope = {"adata": adata}
    exec(str(caught[0].message).split("drop those cells: ")[1], scope)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cd.CellDiT.setup_anndata(scope["adata"], perturbation_key="perturbation")
    assert set(scope["adata"].obs["perturbation"]) == {"control", "A"}


@pytest.mark.parametrize(
    "pair", [("STAT1", "Stat1"), ("control", "Control"), ("IFN g", "IFN  g"), ("A", "A\u200b")]
)
def test_one_label_written_in_several_ways(pair: tuple[str, str]) -> None:
    labels = list(dict.fromkeys(["control", "X", *pair]))
    adata = cells(labels)
    with pytest.warns(UserWarning, match="written in several ways") as caught:
        cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    scope = {"adata": adata}
    exec(str(caught[0].message).split("write them alike: ")[1], scope)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cd.CellDiT.setup_anndata(scope["adata"], perturbation_key="perturbation")


def test_further_controls_are_seen_and_can_be_named(tmp_path: Path) -> None:
    labels = ["NT", "safe-targeting", "DMSO", "A", "A+safe-targeting", "B"]
    (said,) = warned(labels)
    assert "'safe-targeting', 'DMSO' read like those of controls" in said
    assert "pass control=['NT', 'safe-targeting', 'DMSO']" in said
    controls = ["NT", "safe-targeting", "DMSO"]
    assert warned(labels, control=controls) == []
    adata = cells(labels)
    adata.obs["dose"] = ["0", "0", "0", "1", "1+3", "2"] * 6
    said_of = {"perturbation_key": "perturbation", "dose_key": "dose", "control": controls}
    cd.CellDiT.setup_anndata(adata, **said_of)
    fields = Fields.from_anndata(adata)
    assert (fields.control, fields.other_controls) == ("NT", ("safe-targeting", "DMSO"))
    found = Cells.from_anndata(adata, fields)
    assert found.perturbations[:6].tolist() == ["NT", "NT", "NT", "A", "A", "B"]
    assert found.doses is not None
    assert found.doses[:6].tolist() == [0, 0, 0, 1, 1, 2]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for store in (
        open_store(tmp_path / "cells.h5ad"),
        open_store(tmp_path / "cells.h5ad", **said_of),
    ):
        assert store.perturbations.tolist() == found.perturbations.tolist()
    assert Fields.from_dict(fields.to_dict()) == fields
    again = cells(labels)
    again.obs["dose"] = adata.obs["dose"].to_numpy()
    cd.CellDiT.setup_anndata(again, **fields.arguments())
    assert Fields.from_anndata(again) == fields
    cd.pp.split(adata, by="perturbation", test=["B"])
    assert cd.CellDiT(adata, "modules").perturbations == ("A", "B")


def test_no_control_at_all() -> None:
    with pytest.raises(InputError, match=r"control=\[\]"):
        warned(["control", "A"], control=[])


@pytest.mark.parametrize(
    "labels",
    [
        ["control", "STAT1", "IRF1", "IRF1+STAT1"],
        ["NT", "HLA-A", "HLA-B", "NKX2-1"],
        ["DMSO", "IFN-β", "TNF_alpha", "LPS 100 ng/ml"],
        ["0", "1", "2", "3"],
        ["untreated", "heat shock (42 °C)", "drug [low]"],
        ["ctrl", "A+ctrl", "ctrl+B", "A+B"],
        ["WT", "Tal1", "Kit"],
        ["control", "BRAF_V600E", "KRAS_G12D"],
    ],
)
def test_odd_but_right_labels_pass_without_a_word(labels: list[str]) -> None:
    assert warned(labels) == []


def test_a_combination_asked_for_with_another_joiner() -> None:
    model = SimpleNamespace(
        fields=Fields("perturbation"),
        perturbations=("AA", "AA_BB", "BB", "CC"),
        featured=frozenset(),
        elsewhere=Elsewhere(),
    )
    with pytest.raises(UnknownNameError, match=r"Combinations are asked for as 'AA\+CC'"):
        labels_of(model, "AA_CC")
