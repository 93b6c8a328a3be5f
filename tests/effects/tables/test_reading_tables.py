from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit.effects.tables.reading import read_effects, read_table
from celldit.effects.tables.table import EffectTable
from celldit.errors import FileError, InputError

EFFECTS = np.array([[0.5, -1.0, 0.0], [1.0, 0.0, 2.0]], dtype=np.float32)


def wide(**uns: str) -> ad.AnnData:
    obs = pd.DataFrame({"perturbation": ["A", "B"], "n_cells": [30, 40]}, index=["0", "1"])
    made = ad.AnnData(EFFECTS.copy(), obs, pd.DataFrame(index=["g1", "g2", "g3"]))
    made.layers["se"] = np.full_like(EFFECTS, 0.1)
    made.uns["effect_table"] = {"format": 1, "source": "atlas", "licence": "CC0", **uns}
    return made


def rows(**columns: object) -> pd.DataFrame:
    frame = pd.DataFrame(
        [
            (p, g, EFFECTS[i, j])
            for i, p in enumerate("AB")
            for j, g in enumerate(("g1", "g2", "g3"))
        ],
        columns=["perturbation", "gene", "log_fold_change"],
    )
    return frame.assign(**columns)


def same(table: EffectTable) -> None:
    assert table.perturbations == ("A", "B")
    assert table.genes == ("g1", "g2", "g3")
    np.testing.assert_allclose(table.effects[:], EFFECTS)


def test_forms_say_the_same(tmp_path: Path) -> None:
    made = wide()
    made.write_h5ad(tmp_path / "t.h5ad")
    rows().to_csv(tmp_path / "t.csv", index=False)
    compressed = made.copy()
    compressed.X = sparse.csr_matrix(EFFECTS)
    compressed.write_h5ad(tmp_path / "sparse.h5ad")
    given = [made, rows(), *(tmp_path / name for name in ("t.h5ad", "t.csv", "sparse.h5ad"))]
    for one in given:
        same(read_table(one))
    stored = read_table(tmp_path / "t.h5ad")
    assert (stored.source, stored.licence) == ("atlas", "CC0")
    assert stored.errors is not None
    np.testing.assert_allclose(stored.errors[0:1], 0.1)
    same(read_table(stored.to_anndata()))


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows(se=0.2).to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    same(table)
    assert table.source == "t"
    assert table.errors is not None
    np.testing.assert_allclose(table.errors[:], 0.2)


def test_columns_of_other_tools_are_known_and_scanpys_are_to_the_base_of_2() -> None:
    others = rows().rename(
        columns={"perturbation": "target", "gene": "names", "log_fold_change": "logfoldchanges"}
    )
    table = read_table(others)
    same(table)
    assert table.log == "2"


def test_what_was_not_measured_is_missing() -> None:
    table = read_table(rows().iloc[1:])
    assert np.isnan(table.effects[:][0]).sum() == 1


def test_names_of_several() -> None:
    assert set(read_effects([wide(), rows()])) == {"atlas", "table_2"}
    assert set(read_effects({"mine": wide()})) == {"mine"}
    assert len(read_effects([wide(), wide()])) == 2
    assert read_effects(None) == {}


def test_contexts_are_rows_of_their_own() -> None:
    both = pd.concat([rows(context="K562"), rows(context="RPE1")])
    assert len(read_table(both)) == 4


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.concat([rows(), rows()]), "drop or average"),
        (rows().drop(columns="gene"), "lacks the column 'gene'"),
        (rows(direction="sideways"), "direction 'sideways'"),
        (rows(log_fold_change="much"), "not numbers"),
        (rows().iloc[:0], "empty"),
        (
            pd.concat([rows(direction="activation"), rows(direction="knock-out")]),
            "several directions.*'activation' and 'knock-out'",
        ),
    ],
)
def test_refused(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_table(frame)


def test_refused_forms(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tables of effects"):
        read_table(3)  # type: ignore[arg-type]
    with pytest.raises(FileError, match="no file"):
        read_table(tmp_path / "none.h5ad")
    (tmp_path / "t.txt").write_text("x")
    with pytest.raises(FileError, match=r"give a \.h5ad"):
        read_table(tmp_path / "t.txt")
    (tmp_path / "t.h5ad").write_text("x")
    with pytest.raises(FileError, match="cannot be read"):
        read_table(tmp_path / "t.h5ad")
    twice = wide()
    twice.obs["perturbation"] = "A"
    with pytest.raises(InputError, match="several rows"):
        read_table(twice)
    genes = wide()
    genes.var_names = ["g", "g", "h"]
    with pytest.raises(InputError, match="names genes twice"):
        read_table(genes)
    later = wide()
    later.uns["effect_table"]["format"] = 2
    with pytest.raises(FileError, match="later celldit"):
        read_table(later)


def test_columns_beyond_the_table_are_refused(tmp_path: Path) -> None:
    """Read as they stand, they would reach into memory that belongs to something else."""
    beyond, path = wide(), tmp_path / "t.h5ad"
    beyond.X = sparse.csr_matrix(EFFECTS)
    beyond.write_h5ad(path)
    with h5py.File(path, "a") as file:
        file["X/indices"][0] = 3
    with pytest.raises(FileError, match=r"t\.h5ad: .* damaged, since an entry lies at position 3"):
        read_table(path)
    beyond.X.indices[0] = 3
    with pytest.raises(InputError, match=r"damaged, since an entry lies at position 3"):
        read_table(beyond)


def test_links_out_of_a_table_are_not_followed(tmp_path: Path) -> None:
    wide().write_h5ad(tmp_path / "t.h5ad")
    wide().write_h5ad(tmp_path / "secret.h5ad")
    with h5py.File(tmp_path / "t.h5ad", "a") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(tmp_path / "secret.h5ad"), "X")
    with pytest.raises(FileError, match="points out of itself"):
        read_table(tmp_path / "t.h5ad")


@pytest.mark.parametrize("dense", [True, False])
def test_a_backed_table(tmp_path: Path, dense: bool) -> None:
    made = wide()
    made.X = EFFECTS.copy() if dense else sparse.csr_matrix(EFFECTS)
    made.write_h5ad(tmp_path / "t.h5ad")
    same(read_table(ad.read_h5ad(tmp_path / "t.h5ad", backed="r")))


def test_missing_words_are_empty() -> None:
    made = wide()
    made.obs["context"] = pd.Categorical([None, "K562"])
    made.obs["direction"] = [np.nan, "drug"]
    table = read_table(made)
    assert table.obs["context"].tolist() == ["", "K562"]
    assert table.obs["direction"].tolist() == ["", "drug"]
