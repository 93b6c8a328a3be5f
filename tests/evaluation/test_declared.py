"""Benchmarks declared in a file."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pytest

from celldit.errors import FileError, InputError, UnknownNameError
from celldit.evaluation.benchmark import (
    Problem,
    pose,
    read_declaration,
    run,
)

SMALL = Problem("small", "A in d3", "pair", (("A", "d3"),), "A in d3")
HEAD = """
methods = ["no change", "mean shift"]
seeds = [0, 3]
[[data]]
name = "mine"
path = "screen.h5ad"
perturbation_key = "perturbation"
covariate_keys = ["donor"]
"""


@pytest.fixture
def folder(tmp_path, tiny_screen) -> Path:
    adata = tiny_screen.copy()
    adata.uns.clear()
    adata.write_h5ad(tmp_path / "screen.h5ad")
    return tmp_path


def declare(folder: Path, problems: str, head: str = HEAD) -> Path:
    path = folder / "benchmark.toml"
    path.write_text(head + problems)
    return path


def test_a_declared_benchmark_runs_on_the_users_own_file_and_resumes(folder):
    path = declare(
        folder,
        '[[problem]]\ndata = "mine"\nby = "pair"\ntest = [["A", "d3"], ["B", "d1"]]\n'
        '[[problem]]\ndata = "mine"\nby = "perturbation"\ntest = ["A", "B"]\neach = true\n',
    )
    said = read_declaration(path)
    assert said.methods == ("no change", "mean shift")
    assert said.seeds == (0, 3)
    assert [p.name for p in said.problems] == ["A in d3, B in d1", "A alone", "B alone"]
    calls = []

    def spy(posed, seed):
        calls.append(seed)
        return posed_no_change(posed)

    results = run(said.problems[:1], {"spy": spy}, folder / "out", data=said.data)
    assert results["results"][0]["all_cells"]["nmse"] == pytest.approx(1.0, abs=1e-6)
    run(read_declaration(path).problems[:1], {"spy": spy}, folder / "out", data=said.data)
    assert calls == [0]
    # The same names in another file are another problem.
    changed = ad.read_h5ad(folder / "screen.h5ad")
    changed[:-3].copy().write_h5ad(folder / "screen.h5ad")
    again = read_declaration(path)
    run(again.problems[:1], {"spy": spy}, folder / "out", data=again.data)
    assert calls == [0, 0]


def posed_no_change(posed) -> ad.AnnData:
    from celldit.evaluation.benchmark import baseline_methods

    return baseline_methods()["no change"](posed, 0)


@pytest.mark.parametrize("by", ["perturbation", "context", "pair"])
def test_what_is_drawn_is_what_split_draws(folder, by):
    path = declare(folder, f'[[problem]]\ndata = "mine"\nby = "{by}"\nfraction = 0.3\n')
    said = read_declaration(path)
    (problem,) = said.problems
    assert problem == read_declaration(path).problems[0]
    posed = pose(problem, said.data["mine"])
    adata = said.data["mine"].copy()
    from celldit.data import split

    split(adata, by, fraction=0.3, seed=0)
    test = adata[adata.obs["split"] == "test"]
    assert set(posed.truth.obs_names) == set(test.obs_names)


@pytest.mark.parametrize(
    ("problems", "error", "text"),
    [
        ("", InputError, "no table"),
        ('[[problem]]\ndata = "mine"\nby = "pair"', InputError, "either test.*or fraction"),
        ('[[problem]]\ndata = "mina"\nby = "pair"', UnknownNameError, "Did you mean 'mine'"),
        ('[[problem]]\ndata = "mine"\nby = "cells"', UnknownNameError, "by in benchmark.toml"),
        ('[[problem]]\ndata = "mine"\nby = "pair"\ntest = []', InputError, "must be a list"),
        ('[[problem]]\ndata = "mine"\nby = "pair"\ntset = [1]', UnknownNameError, "mean 'test'"),
        ('[problem]\ndata = "mine"', InputError, "two brackets"),
        ("[[problem]", FileError, "cannot be read as TOML"),
        (
            2 * '[[problem]]\ndata = "mine"\nby = "context"\ntest = ["d1"]\n',
            InputError,
            "two problems named 'd1'",
        ),
    ],
)
def test_a_file_that_makes_no_sense_says_where(problems, error, text, folder):
    with pytest.raises(error, match=text):
        read_declaration(declare(folder, problems))


def test_a_data_set_needs_a_name_and_a_file_of_its_own(folder):
    problem = '[[problem]]\ndata = "mine"\nby = "context"\ntest = ["d1"]\n'
    for head, error, text in (
        (HEAD.replace('"mine"', '"kang"'), InputError, "'kang' is taken"),
        (HEAD.replace("screen.h5ad", "gone.h5ad"), FileError, "no file"),
        (HEAD.replace("perturbation_key", "perturbation_kye"), UnknownNameError, "mean 'pert"),
        (HEAD.replace("[0, 3]", '["a"]'), InputError, "list of whole numbers"),
    ):
        with pytest.raises(error, match=text):
            read_declaration(declare(folder, problem, head))
    with pytest.raises(FileError, match="There is no settings file"):
        read_declaration(folder / "gone.toml")
