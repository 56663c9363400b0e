"""Rewards of tokens: others' numbers, and by hand."""

import numpy as np
import pytest

from grpo_jax.rewards import shaping
from grpo_jax.rewards.settings import Rewarding
from tests import oracle

NAN = float("nan")
CASES = [c for c in oracle.CASES if c["kind"] == "reward"]


def of(name):
    chosen = [c for c in CASES if c["options"]["reward"] == name]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=[c["id"] for c in chosen])


@of("soft_overlong")
def test_overlong_is_trls(case):
    options, length = case["options"], case["inputs"]["length"]
    got = shaping.overlong(length, options["max_length"], options["buffer"])
    assert got == pytest.approx(case["expected"]["reward"], abs=1e-10)


@of("repetition")
def test_repetition_is_trls(case):
    options, tokens = case["options"], case["inputs"]["tokens"]
    assert options["penalty"] == -1
    got = shaping.repetition(tokens, options["n"])
    assert got == pytest.approx(case["expected"]["reward"], abs=1e-10)


def test_no_number_is_negative_zero():
    got = [shaping.overlong(3, 10, 5), shaping.repetition([1, 2], 1)]
    assert got == [0, 0] and not np.signbit(got).any()


@pytest.mark.parametrize(
    ("length", "ends", "reward"),
    [
        (0, (1.0, 0.5), 1.0),
        (25, (1.0, 0.5), 0.5 + 0.25 * (1 + 2**-0.5)),  # cos 45°
        (50, (1.0, 0.5), 0.75),
        (75, (1.0, 0.5), 0.5 + 0.25 * (1 - 2**-0.5)),
        (100, (1.0, 0.5), 0.5),
        (130, (1.0, 0.5), 0.5),
        (50, (-1.0, -0.5), -0.75),
        (25, (-1.0, -0.5), -0.5 - 0.25 * (1 + 2**-0.5)),
    ],
)
def test_cosine_goes_from_one_end_to_the_other(length, ends, reward):
    assert shaping.cosine(length, 100, ends) == pytest.approx(reward, abs=1e-12)


def given(length, parts, most=12, right_above=0.5, tokens=None, **chosen):
    length = np.array(length)
    tokens = np.zeros((len(length), 12), int) if tokens is None else np.array(tokens)
    limits = {"most": most, "right_above": right_above}
    chosen = Rewarding(**chosen)
    found = shaping.given(chosen, tokens, length, np.array(parts), **limits)
    assert found.shape == (len(length), len(shaping.names(chosen)))
    return found


def test_dapos_penalty_at_its_corners():
    # L_max = 12, L_cache = 4: 0 up to 8, then (8 − length)/4, −1 at 12.
    length, one = (1, 8, 9, 10, 11, 12), [[1.0]] * 6
    got = given(length, one, overlong=4)[:, 0]
    np.testing.assert_array_equal(got, [0, 0, -0.25, -0.5, -0.75, -1])
    got = given(length, one, overlong=12)[:, 0]
    np.testing.assert_allclose(got, -np.array(length) / 12)
    assert given(length, one).shape == (6, 0)


def test_only_tokens_of_the_row_repeat():
    tokens = [[1, 2, 1, 2, *[0] * 8], [1, 2, 3, 4, *[0] * 8]]
    got = given([4, 4], [[1.0], [1.0]], tokens=tokens, repetition=2)
    np.testing.assert_allclose(got, [[2 / 3 - 1], [0]])


def test_each_stands_in_its_place():
    got = given([6], [[1.0]], overlong=12, repetition=3, cosine=6)
    np.testing.assert_allclose(got, [[-0.5, 1 / 4 - 1, 0.5]])
    names = shaping.names(Rewarding(cosine=6, overlong=12, repetition=3))
    assert names == ["overlong", "repetition", "cosine"]


def test_the_first_function_says_what_is_right():
    parts = [[0.6, 0.0], [0.5, 1.0], [NAN, 1.0], [NAN, NAN]]
    got = given([6] * 4, parts, cosine=12, overlong=12)
    expected = [[-0.5, 0.75], [-0.5, -0.75], [-0.5, NAN], [NAN, NAN]]
    np.testing.assert_allclose(got, expected)
    got = given([6], [[0.6]], right_above=0.7, cosine=12, cosine_wrong=(-2.0, 0.0))
    np.testing.assert_allclose(got, [[-1]])
    got = given([6], [[0.6]], cosine=12, cosine_right=(3.0, 1.0))
    np.testing.assert_allclose(got, [[2]])
