"""Descriptions of perturbations are read from the files that people have."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit.effects.features.features import read_features
from celldit.effects.features.files import graph_table, table_of
from celldit.errors import FileError, InputError

NAMES = ["STAT1", "JAK2", "NA"]
MATRIX = np.array([[1.0, 2.0, 0.5], [0.0, 1.0, 4.0], [3.0, 0.0, 1.0]])
EDGES = pd.DataFrame({"a": ["A", "B", "A"], "b": ["B", "C", "B"], "score": [1.0, 1.0, 1.0]})


def written(folder: Path, form: str) -> Path:
    frame, path = pd.DataFrame(MATRIX, NAMES), folder / f"esm2.{form}"
    if form == "csv":
        frame.to_csv(path)
    elif form == "tsv":
        frame.to_csv(path, sep="\t")
    elif form == "parquet":
        pytest.importorskip("pyarrow")
        frame.rename(columns=str).to_parquet(path)
    elif form == "npy":
        np.save(path, MATRIX)
        path.with_suffix(".txt").write_text("\n".join(NAMES))
    elif form == "npz":
        np.savez(path, names=np.array(NAMES), vectors=MATRIX)
    else:
        ad.AnnData(sparse.csr_matrix(MATRIX), pd.DataFrame(index=NAMES)).write_h5ad(path)
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "npy", "npz", "h5ad"])
def test_forms_say_the_same(form: str, tmp_path: Path) -> None:
    path = written(tmp_path, form)
    table = table_of(path)
    assert isinstance(table, pd.DataFrame)
    assert list(table.index) == NAMES
    np.testing.assert_allclose(table.to_numpy(float), MATRIX)
    ((names, matrix),) = read_features([path]).values()
    ((_, plain),) = read_features(pd.DataFrame(MATRIX, NAMES)).values()
    assert names == tuple(NAMES)
    np.testing.assert_allclose(matrix, plain)
    assert set(read_features([path])) == {"esm2"}


def test_matrices_with_names(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MATRIX)
    (tmp_path / "names.list").write_text("\n".join(NAMES))
    ways: list[Any] = [(MATRIX, NAMES), (tmp_path / "m.npy", NAMES),
                       (tmp_path / "m.npy", tmp_path / "names.list")]  # fmt: skip
    for given in ways:
        assert read_features(given)["features"][0] == tuple(NAMES)
        assert set(read_features({"esm2": given})) == {"esm2"}
    by_name = tmp_path / "by_name.npz"
    np.savez(by_name, **dict(zip(NAMES, MATRIX, strict=True)))
    assert list(table_of(by_name).index) == NAMES  # type: ignore[union-attr]


def test_two_steps_of_a_lazy_walk_are_the_kernel() -> None:
    table = graph_table(EDGES)
    walk = table["weights"].toarray()
    # A chain of three: the edge that is listed twice weighs twice.
    adjacency = np.array([[0, 2, 0], [2, 0, 1], [0, 1, 0.0]])
    degree = adjacency.sum(1)
    step = adjacency / np.sqrt(np.outer(degree, degree))
    np.testing.assert_allclose(walk, (np.eye(3) + step) / 2)
    kernel = walk @ walk.T
    assert np.linalg.eigvalsh(kernel).min() > -1e-12
    assert kernel[0, 1] > kernel[0, 2] > 0


def test_direction_and_order_of_edges_do_not_matter(tmp_path: Path) -> None:
    EDGES.to_csv(tmp_path / "string.csv", index=False)
    turned = EDGES.iloc[::-1].rename(columns={"a": "b", "b": "a"})
    turned.to_csv(tmp_path / "turned.tsv", sep="\t", index=False)
    one, two = (table_of(tmp_path / name) for name in ("string.csv", "turned.tsv"))
    assert (one["weights"] != two["weights"]).nnz == 0
    both_ways = pd.concat([EDGES.iloc[:2], EDGES.iloc[:2].rename(columns={"a": "b", "b": "a"})])
    np.testing.assert_allclose(
        graph_table(both_ways)["weights"].toarray(),
        graph_table(EDGES.iloc[:2])["weights"].toarray(),
    )


def test_a_network_tells_what_neighbours_share(tmp_path: Path) -> None:
    from celldit.conditions import Condition, ConditionTable
    from celldit.effects.fit_prior import fit_prior

    rng, groups = np.random.default_rng(0), ("abcdefg", "hijklmn")
    names = "".join(groups)
    edges = [(x, y) for group in groups for x in group for y in group if x < y]
    pd.DataFrame(edges, columns=["from", "to"]).to_csv(tmp_path / "net.csv", index=False)
    centre = 3 * rng.normal(size=(2, 6))
    effect = {n: centre[int(n in groups[1])] + 0.3 * rng.normal(size=6) for n in names}
    trained = [n for n in names if n not in "gn"]
    conditions = (Condition(), *(Condition((n,)) for n in trained))
    index = np.repeat(np.arange(len(conditions)), 40)
    shifts = np.array([np.zeros(6), *(effect[n] for n in trained)])
    z = shifts[index] + rng.normal(size=(len(index), 6))
    features = read_features(tmp_path / "net.csv")
    prior = fit_prior(z, ConditionTable(conditions, index), features=features)
    assert prior.uninformative == ()
    found = prior.estimate([Condition(("g",)), Condition(("n",))]).mean
    truth = np.array([effect["g"], effect["n"]])
    assert ((found - truth) ** 2).sum() < 0.3 * (truth**2).sum()


def test_nothing_is_executed(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(MATRIX))
    with pytest.raises(FileError, match="may hold code"):
        table_of(tmp_path / "m.pkl")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "o.txt").write_text("A")
    with pytest.raises(FileError, match=r"cannot be read as \.npy"):
        table_of(tmp_path / "o.npy")
    np.savez(tmp_path / "o.npz", names=np.array(["A"]), vectors=np.array([[{}]], dtype=object))
    with pytest.raises(FileError, match="cannot be read"):
        table_of(tmp_path / "o.npz")


def test_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MATRIX)
    with pytest.raises(FileError, match="without names"):
        table_of(tmp_path / "m.npy")
    with pytest.raises(InputError, match="do not fit 2 names"):
        table_of((MATRIX, ["A", "B"]))
    with pytest.raises(FileError, match="no file"):
        table_of(tmp_path / "none.csv")
    (tmp_path / "t.doc").write_text("x")
    with pytest.raises(FileError, match="no table of features"):
        table_of(tmp_path / "t.doc")
    np.savez(tmp_path / "m.npz", a=MATRIX, b=MATRIX[:2])
    with pytest.raises(FileError, match="one matrix and one list of names"):
        table_of(tmp_path / "m.npz")
    with pytest.raises(InputError, match="no X"):
        table_of(ad.AnnData(obs=pd.DataFrame(index=NAMES)))
    with pytest.raises(InputError, match="weights above 0"):
        graph_table(EDGES.assign(score=0.0))
