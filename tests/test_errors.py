from __future__ import annotations

import pytest

from celldit.errors import (
    CellditError,
    FileError,
    InputError,
    NotTrainedError,
    UnknownNameError,
    closest,
    examples,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InputError, ValueError),
        (UnknownNameError, KeyError),
        (FileError, OSError),
        (NotTrainedError, RuntimeError),
    ],
)
def test_errors_are_celldit_errors_and_builtin_ones(error, builtin):
    assert issubclass(error, CellditError)
    assert issubclass(error, builtin)
    assert str(error("One sentence.")) == "One sentence."


def test_unknown_name_shows_the_closest_and_the_known():
    error = UnknownNameError.among("perturbation", "stat11", ["STAT1", "JAK2"])
    assert (
        str(error)
        == "Unknown perturbation 'stat11' (known: 'STAT1', 'JAK2'). Did you mean 'STAT1'?"
    )
    assert "Did you mean" not in str(UnknownNameError.among("gene", "xyz", ["STAT1"]))
    assert "none is known" in str(UnknownNameError.among("layer", "counts", []))


def test_unknown_name_bounds_the_list():
    text = str(UnknownNameError.among("gene", "?", [f"G{i}" for i in range(1000)]))
    assert "990 more" in text
    assert len(text) < 200


def test_closest_ignores_case_and_refuses_the_far():
    assert closest("Control", ["control", "IFNB"]) == "control"
    assert closest("zzz", ["control", "IFNB"]) is None


def test_examples_counts_the_rest():
    assert examples(["a", "b"]) == "'a', 'b'"
    assert examples(list("abcde")) == "'a', 'b', 'c' and 2 more"
