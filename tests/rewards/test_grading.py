"""Groups of texts are graded in their places, and faults are told."""

import threading

import numpy as np
import pytest

from grpo_jax.data.problem import Problem
from grpo_jax.rewards import grading
from grpo_jax.rewards.settings import Rewarding
from grpo_jax.section import Refused

FOUR = Problem("2+2=", "4")


def graded(groups, functions=(), checker="last", **own):
    grader = grading.Grader(Rewarding(functions=functions), checker, own)
    begun = [grader.submit(problem, texts) for problem, texts in groups]
    return grader.names, grader.collect(begun)


def test_each_sample_has_the_rewards_of_its_own_problem():
    groups = [(FOUR, ["4", "5", " 4 "]), (Problem("2+3=", "5"), ["4", "5", "#### 5"])]
    names, found = graded(groups, ("format", "last"))
    assert names == ("format", "last") and found.faults == []
    expected = [[[0, 1], [0, 0], [0, 1]], [[0, 0], [0, 1], [1, 1]]]
    np.testing.assert_array_equal(found.parts, expected)


@pytest.mark.parametrize(("checker", "right"), [("last", 0.0), ("correct", 1.0)])
def test_without_functions_the_data_have_their_own_checker(checker, right):
    names, found = graded([(FOUR, ["#### 4.0"])], checker=checker)
    assert names == (checker,) and found.parts.item() == right


def test_a_row_that_is_not_there_is_neither_scored_nor_a_fault():
    _, found = graded([(FOUR, [None, "4"])])
    np.testing.assert_array_equal(found.parts, [[[np.nan], [1]]])
    assert found.faults == []


def test_a_fault_leaves_the_others_as_they_are():
    def odd(question, completion, answer):
        return 1 / (len(completion) - 2)

    _, found = graded([(FOUR, ["a", "bb", "ccc"])], ("odd",), odd=odd)
    np.testing.assert_array_equal(found.parts[0, :, 0], [-1, np.nan, 1])
    assert found.faults == ["odd raised ZeroDivisionError: division by zero"]


def test_grading_goes_on_while_others_are_submitted():
    """The first group waits for what the second brings."""
    comes = threading.Event()

    def waits(question, completion, answer):
        if completion == "last":
            comes.set()
        return float(comes.wait(60))

    groups = [(FOUR, ["a", "b"]), (FOUR, ["c", "last"])]
    _, found = graded(groups, ("waits",), waits=waits)
    np.testing.assert_array_equal(found.parts, np.ones((2, 2, 1)))


def test_an_unknown_function_is_refused_with_those_there_are():
    with pytest.raises(Refused, match=r"names mine; there are correct, last, .*, own"):
        graded([], ("last", "mine"), own=lambda *texts: 1.0)


def test_ones_own_function_may_take_the_name_of_a_known_one():
    _, found = graded([(FOUR, ["5"])], ("last",), last=lambda *texts: 3.0)
    assert found.parts.item() == 3


def test_the_column_of_a_reward_model_is_left_empty():
    """What it says comes of the devices."""
    names, found = graded([(FOUR, ["4", "x"])], ("last", "model", "format"))
    assert names == ("last", "model", "format") and found.faults == []
    np.testing.assert_array_equal(found.parts, [[[1, np.nan, 0], [0, np.nan, 0]]])
    _, found = graded([(FOUR, ["4"])], ("model",))
    assert np.isnan(found.parts).all() and found.faults == []
    with pytest.raises(Refused, match="of your own is called 'model'"):
        graded([(FOUR, ["4"])], ("model",), model=lambda *texts: 1.0)
