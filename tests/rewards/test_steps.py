"""The rule for chains: what it says of lines, and that no number of them pays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax.data import arithmetic
from grpo_jax.rewards import steps

QUESTION = "Start with 4. Add 3. Multiply by 2. Subtract 20. What is the result?"
LINES = ["4 + 3 = 7", "7 * 2 = 14", "14 - 20 = -6", "#### -6"]


def chain(lines):
    return steps.chain(QUESTION, lines, "-6")


def but(i, line):
    return [*LINES[:i], line, *LINES[i + 1 :]]


@pytest.mark.parametrize(
    ("lines", "reward"),
    [
        (LINES, [1, 1, 1, 1]),
        (["4+3=7", " 7 * 2 = 14 ", "14 -20= -6", "####-6"], [1, 1, 1, 1]),
        (but(1, "7 * 2 = 15"), [1, 0, 1, 1]),  # not true
        (but(1, "2 * 7 = 14"), [1, 0, 1, 1]),  # true, and not what is asked for
        (but(2, "14 - 20 = 6"), [1, 1, 0, 1]),
        (but(3, "#### 6"), [1, 1, 1, 0]),
        (but(3, "-6"), [1, 1, 1, 0]),
        (but(3, "#### -6.0"), [1, 1, 1, 0]),
        # It goes on from what was written: true, and all of it wrong.
        (["4 + 3 = 0", "0 * 2 = 0", "0 - 20 = -20", "#### -20"], [0, 0, 0, 0]),
        # Missing lines are paid for by the last one.
        (LINES[:3], [1, 1, 0]),
        (LINES[:1], [-2]),
        (["#### -6"], [-3]),
        ([""], [-3]),
        # The first too many gets the least there is, and the rest is not looked at.
        ([*LINES, "#### -6"], [1, 1, 1, 1, -3]),
        ([*LINES, "x", "x", "x"], [1, 1, 1, 1, -3, None, None]),
        # Lines that are repeated, split or put together move the others.
        ([LINES[0], *LINES], [1, 0, 0, 0, -3]),
        (["4 + 3", "= 7", *LINES[1:]], [0, 0, 0, 0, -3]),
        (["4 + 3 = 7 7 * 2 = 14", *LINES[2:]], [0, 0, -1]),
        (["4 + 3 = 7\n7 * 2 = 14", *LINES[2:]], [0, 0, -1]),
    ],
)
def test_each_line_is_compared_with_the_one_that_is_asked_for(lines, reward):
    assert chain(lines) == reward


@pytest.mark.parametrize("make", [arithmetic.chain, arithmetic.series])
@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(1, 6))
def test_the_demonstration_is_right_in_every_line(make, seed, number, count):
    made = make(seed, number, count)
    lines = made.demonstration.split("\n")
    assert arithmetic.asked(made.question, made.answer) == lines
    assert steps.chain(made.question, lines, made.answer) == [1.0] * len(lines)


def test_a_question_that_is_no_chain_is_a_fault():
    with pytest.raises(ValueError, match=r"'2\+2=' is no chain of steps"):
        steps.chain("2+2=", ["4"], "4")
    with pytest.raises(ValueError, match="is no chain"):
        steps.chain(QUESTION + "\nStep by step.", LINES, "-6")


some = st.lists(st.sampled_from([*LINES, "14 - 20 = 6", "x"]), min_size=1, max_size=9)


def worth(lines, mean):
    """Of the first token: the sum over steps, for any std."""
    return sum(r - mean for r in chain(lines) if r is not None)


# No mean is outside of what a step can get.
means = st.floats(1 - len(LINES), 1)


@given(some, means, st.sampled_from(["x", *LINES]), st.integers(1, 3))
def test_no_line_more_than_asked_for_pays(lines, mean, line, count):
    whole = (lines + ["x"] * len(LINES))[: len(LINES)]
    longer = whole + [line] * count
    assert worth(longer, mean) <= worth(whole, mean) + 1e-9


@given(some, means, st.integers(1, 3))
def test_no_line_that_is_left_out_at_the_end_pays(lines, mean, kept):
    whole = (lines + ["x"] * len(LINES))[: len(LINES)]
    assert worth(whole[:kept], mean) <= worth(whole, mean) + 1e-9


@given(some, means)
def test_nothing_is_worth_more_than_what_is_right(lines, mean):
    assert worth(lines, mean) <= worth(LINES, mean) + 1e-9


@given(st.integers(0, 3), means, st.data())
def test_no_line_that_is_repeated_or_split_pays(i, mean, data):
    at = data.draw(st.integers(1, len(LINES[i]) - 1))
    twice = [*LINES[: i + 1], *LINES[i:]]
    split = [*LINES[:i], LINES[i][:at], LINES[i][at:], *LINES[i + 1 :]]
    for lines in (twice, split):
        assert worth(lines, mean) <= worth(LINES, mean) + 1e-9


def better_off(score, others, k):
    """Whether a sample with k right lines gains by fewer lines, and by more of them."""

    def worth_within(lines):
        own, given = score(lines), np.concatenate(others)
        pool = np.append(own, given)
        return (own - pool.mean()).sum() / pool.std() if pool.std() else 0.0

    whole = LINES[:k] + ["x"] * (len(LINES) - k)
    fewer = [whole[:kept] for kept in (1, 2, 3)]
    more = [whole + ["x"] * count for count in (1, 2, 3)]
    best = worth_within(whole) + 1e-9
    return [max(map(worth_within, ways)) > best for ways in (fewer, more)]


def test_in_a_group_of_16_other_numbers_of_lines_hardly_ever_pay():
    """A sample moves the mean and the spread that it is compared with."""
    rng, ours, theirs = np.random.default_rng(0), [], []
    rule = lambda lines: np.array([r for r in chain(lines) if r is not None])  # noqa: E731
    plain = lambda lines: np.array([float(x in LINES) for x in lines])  # noqa: E731
    for _ in range(400):
        right = np.minimum(rng.geometric(rng.uniform(0.05, 0.95), 16) - 1, len(LINES))
        lines = [LINES[:k] + ["x"] * (len(LINES) - k) for k in right]
        others = list(map(rule, lines[1:]))
        ours.append(better_off(rule, others, right[0]))
        theirs.append(better_off(plain, others, right[0]))
    assert (np.mean(ours, 0) < 0.06).all()
    assert np.mean(theirs, 0)[0] > 0.5


def test_without_these_rules_a_wrong_policy_would_gain_by_saying_little():
    """What the rule is for: 0 for what is wrong, and nothing for what is missing."""
    plain = lambda lines, m: sum((x in LINES) - m for x in lines)  # noqa: E731
    wrong = ["x"] * len(LINES)
    assert plain(wrong[:1], 0.5) > plain(wrong, 0.5)
    assert worth(wrong[:1], 0.5) < worth(wrong, 0.5)
