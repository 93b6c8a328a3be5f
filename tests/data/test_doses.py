from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celldit.data.labels.doses import canonical_doses, dose_parts
from celldit.errors import InputError

numbers = st.floats(0, 1e6, allow_nan=False)


@given(st.dictionaries(st.sampled_from("ABCDE"), numbers, min_size=1), st.permutations("ABCDE"))
def test_each_dose_stays_with_its_perturbation(doses, order):
    drawn = [name for name in order if name in doses]
    written = "+".join(repr(doses[name]) for name in drawn)
    (result,) = canonical_doses([written], ["+".join(drawn)])
    assert dose_parts(result, len(doses)) == tuple(doses[name] for name in sorted(doses))


@given(numbers, st.integers(0, 4))
def test_a_single_number_holds_for_every_part(number, n_parts):
    assert dose_parts(number, n_parts) == (number,) * n_parts
    assert dose_parts(str(number), n_parts) == (number,) * n_parts


def test_numbers_stay_numbers():
    doses = canonical_doses([1, 2.5, np.nan], ["A", "B", "control"])
    assert doses.dtype == np.float64
    np.testing.assert_array_equal(doses, [1, 2.5, 0])


def test_exponents_are_not_cut_at_the_separator():
    assert dose_parts("1e+2", 1) == (100.0,)


def test_doses_of_controls_are_dropped():
    doses = canonical_doses(["1+0", "0+2", "0+0"], ["A+control", "control+A", "control"])
    np.testing.assert_array_equal(doses, [1, 2, 0])


def test_repeated_perturbations_need_one_dose():
    np.testing.assert_array_equal(canonical_doses(["2+2"], ["A+A"]), [2])
    with pytest.raises(InputError, match="names 'A' twice"):
        canonical_doses(["2+3"], ["A+A"])


@pytest.mark.parametrize(
    ("dose", "label", "message"),
    [
        (-1, "A", "not a number of at least 0"),
        ("high", "A", "not a number of at least 0"),
        ("1+", "A+B", "not a number of at least 0"),
        ("inf", "A", "not a number of at least 0"),
        (True, "A", "not a number of at least 0"),
        ("1+2+3", "A+B", "3 numbers for 2 perturbations"),
        (np.nan, "A", "only controls may have none"),
    ],
)
def test_bad_doses_are_refused(dose, label, message):
    with pytest.raises(InputError, match=message):
        canonical_doses([dose], [label])
