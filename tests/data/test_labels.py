from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celldit.data.labels.labels import canonical, canonical_array, parts
from celldit.errors import InputError

names = st.sampled_from(["A", "B", "TP53", "IL-2", "control"])
pieces = st.lists(names, min_size=1, max_size=5)


@given(pieces, st.randoms(use_true_random=False))
def test_order_repetition_blanks_and_controls_carry_no_meaning(written, random):
    shuffled = [*written, random.choice(written), "control"]
    random.shuffle(shuffled)
    assert canonical("+".join(written)) == canonical(" + ".join(shuffled))


@given(pieces)
def test_canonical_labels_stay_as_they_are_and_join_their_parts(written):
    label = canonical("+".join(written))
    assert canonical(label) == label
    assert parts(label) == tuple(sorted(set(written) - {"control"}))
    assert label == ("+".join(parts(label)) or "control")


@given(st.lists(pieces.map("+".join), max_size=30))
def test_many_labels_are_rewritten_like_each_one(labels):
    rewritten = canonical_array(labels)
    assert rewritten.dtype == object
    assert list(rewritten) == [canonical(label) for label in labels]


def test_control_and_separator_may_be_any():
    assert parts("ctrl", control="ctrl") == ()
    assert canonical("B&A&ctrl", sep="&", control="ctrl") == "A&B"
    assert canonical("A+B", sep="&") == "A+B"
    assert canonical("safe+harbour", control="safe+harbour") == "safe+harbour"


@pytest.mark.parametrize("label", ["", "  ", "A+", "+A", "A++B"])
def test_empty_parts_are_refused(label):
    with pytest.raises(InputError, match="empty"):
        canonical(label)


def test_many_labels_are_parsed_once_each(monkeypatch):
    import celldit.data.labels.labels as labels

    seen = []
    monkeypatch.setattr(labels, "canonical", lambda label, *_: seen.append(label) or label)
    labels.canonical_array(np.array(["A", "B"] * 500, dtype=object))
    assert seen == ["A", "B"]
