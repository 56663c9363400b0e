"""Comparisons over seeds, by hand, against scipy, and by what must hold of any."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax import contrast
from grpo_jax.section import Refused

NUMBERS = st.lists(st.floats(-10, 10, allow_nan=False), min_size=2, max_size=9)


def of(*difference):
    return contrast.paired(np.array(difference, float), np.zeros(len(difference)))


def test_interval_by_hand():
    # 1, 2, 3: mean 2, sd 1, t(.975; 2) = 4.302653, half = 4.302653 / √3
    found = of(1, 2, 3)
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)


def test_what_differs_is_within_a_seed():
    ours, theirs = np.array([0.1, 0.5, 0.9]), np.array([0.05, 0.45, 0.85])
    assert contrast.paired(ours, theirs).low == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("difference", "p"),
    [
        ([1, 1, 1, 1, 1], 0.0625),
        ([1, 2, 3, 4, 5, 6, 7, 8], 0.0078125),
        ([-1, -2, -3, -4, -5, -6, -7, -8], 0.0078125),
        ([1, -1], 1.0),
        # ±1 ±2 ±3: the sums are 6 0 2 4 and their opposites; 4 or more: 4 of 8
        ([-1, 2, 3], 0.5),
        ([0, 0, 0], 1.0),
        ([0.1, 0.2, -0.3, 0.0], 1.0),  # 0 but for its rounding
    ],
)
def test_signs_by_hand(difference, p):
    assert of(*difference).p == p


@given(NUMBERS)
def test_as_scipy_has_them(difference):
    found = np.array(difference)
    ours = contrast.paired(found, np.zeros(len(found)))
    if found.std() > 1e-6:
        interval = scipy.stats.ttest_1samp(found, 0).confidence_interval()
        assert (ours.low, ours.high) == pytest.approx(interval, rel=1e-6, abs=1e-9)
    if abs(found.sum()) > 1e-6:  # where it has no tie with 0 to break
        theirs = scipy.stats.permutation_test(
            (found,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert ours.p == pytest.approx(theirs.pvalue)


@given(NUMBERS, st.integers(0, 8))
def test_neither_order_of_seeds_nor_of_arms_matters(difference, shift):
    one, other = of(*difference), of(*np.roll(difference, shift))
    assert one == pytest.approx(other, abs=1e-9)
    turned = of(*(-x for x in difference))
    expected = (-turned.mean, -turned.high, -turned.low, turned.p, turned.seeds)
    assert one == pytest.approx(expected, abs=1e-9)


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 → .04 .06 .06 .06: the last two may not be below the second
    found = contrast.holm({"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.02})
    assert found == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.06})
    assert list(found) == ["a", "b", "c", "d"]
    assert contrast.holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert contrast.holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_and_bonferroni_is_no_lower(p):
    named = {str(i): x for i, x in enumerate(p)}
    for name, x in contrast.holm(named).items():
        assert named[name] <= x <= min(1.0, len(p) * named[name])


@pytest.mark.parametrize("count", [0, 1])
def test_one_seed_has_no_interval(count):
    with pytest.raises(Refused, match=f"{count} seeds say nothing"):
        of(*range(count))


def test_too_many_seeds_for_all_signs():
    with pytest.raises(Refused, match="20 at most"):
        of(*range(21))
