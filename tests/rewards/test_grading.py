"""Groups of texts are graded in their places, and faults are told."""

import threading
import time

import numpy as np
import pytest

from grpo_jax.data.problem import Problem
from grpo_jax.rewards import code, grading, rules
from grpo_jax.rewards.settings import Rewarding
from grpo_jax.section import Refused

FOUR = Problem("2+2=", "4")


def graded(groups, functions=(), checker="last", **own):
    grader = grading.Grader(Rewarding(functions=functions), checker, own)
    ended = [True] * 3
    begun = [grader.submit(p, texts, ended[: len(texts)]) for p, texts in groups]
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


def length(question, completion, answer):
    return len(completion)


def test_a_text_that_was_cut_earns_nothing_by_what_it_had_not_finished():
    """`#### 4` may have been going to be 42; a box that is closed is what it is."""
    texts = ["#### 4", r"\boxed{4} and so", "so\n#### 4", "#### 4\nand so"]
    grader = grading.Grader(Rewarding(), "correct", {})
    found = [
        grader.collect([grader.submit(FOUR, texts, [ended] * 4)]).parts[0, :, 0]
        for ended in (True, False)
    ]
    np.testing.assert_array_equal(found, [[1, 1, 1, 1], [0, 1, 0, 1]])
    # One's own function sees what there is.
    grader = grading.Grader(Rewarding(functions=("n",)), "last", {"n": length})
    found = grader.collect([grader.submit(FOUR, ["#### 4"], [False])])
    assert found.parts.item() == 6


def test_only_own_functions_are_ended_by_the_time_they_take(monkeypatch):
    """A rule of ours may wait for a worker to begin, on a machine however slow."""
    slow = lambda *texts: time.sleep(0.3) or 1.0  # noqa: E731
    monkeypatch.setitem(rules.RULES, "correct", slow)
    for own, faults in (({}, 0), ({"correct": slow}, 1)):
        grader = grading.Grader(Rewarding(seconds=0.1), "correct", own)
        found = grader.collect([grader.submit(FOUR, ["4"], [True])])
        assert len(found.faults) == faults


def test_programs_run_within_their_limits(monkeypatch):
    asked = []
    monkeypatch.setattr(code, "judged", lambda *given: asked.append(given) or 1.0)
    chosen = Rewarding(functions=("code",), program_seconds=2.0, program_memory=99)
    grader = grading.Grader(chosen, "last", {})
    asked.clear()
    found = grader.collect([grader.submit(FOUR, ["x = 4"], [True])])
    assert asked == [("x = 4", "4", 2.0, 99)] and found.parts.item() == 1


def test_where_programs_cannot_run_nothing_begins(monkeypatch):
    monkeypatch.setattr(code.jail, "__file__", "/nowhere")
    with pytest.raises(Refused, match="the reward 'code' runs programs"):
        graded([], ("code",))
    # One's own of that name runs elsewhere.
    _, found = graded([(FOUR, ["4"])], ("code",), code=lambda *texts: 1.0)
    assert found.parts.item() == 1


@pytest.mark.parametrize("by", ["outputs", "steps"])
@pytest.mark.parametrize("others", [(), ("last",), ("format",)])
def test_where_a_model_rewards_the_datas_own_checker_measures(by, others):
    """Once, and beside the rewards; an own function of its name does not."""
    names = (*others, "model") if by == "outputs" else others
    chosen = Rewarding(functions=names, steps="model" if by == "steps" else None)
    for own in ({}, {"last": lambda *texts: 3.0}):
        grader = grading.Grader(chosen, "last", own)
        begun = grader.submit(FOUR, ["4", "x", None, "5\n4"], [True] * 3 + [False])
        assert len(begun[0]) + (by == "outputs") == grader.calls
        found = grader.collect([begun])
        np.testing.assert_array_equal(found.right, [[1, 0, np.nan, 0]])
        assert found.parts.shape == (1, 4, len(names or ("last",)))
        asked = {"last", *others} if others or by == "outputs" else {"last"}
        twice = bool(own) and "last" in (names or ("last",))
        assert grader.calls == len(asked) + (by == "outputs") + twice
    grader = grading.Grader(Rewarding(functions=others), "last", {})
    assert grader.collect([grader.submit(FOUR, ["4"], [True])]).right is None


def test_programs_are_run_where_they_say_what_is_right(monkeypatch):
    chosen, needed = Rewarding(functions=("model",)), []
    monkeypatch.setattr(code, "judged", lambda *given: 1.0)
    monkeypatch.setattr(code, "need_jail", lambda: needed.append(1))
    grader = grading.Grader(chosen, "code", {})
    found = grader.collect([grader.submit(FOUR, ["x = 4"], [True])])
    assert found.right.item() == 1 and np.isnan(found.parts).all()
    assert needed == [1]


def test_the_column_of_a_reward_model_is_left_empty():
    """What it says comes of the devices."""
    names, found = graded([(FOUR, ["4", "x"])], ("last", "model", "format"))
    assert names == ("last", "model", "format") and found.faults == []
    np.testing.assert_array_equal(found.parts, [[[1, np.nan, 0], [0, np.nan, 0]]])
    _, found = graded([(FOUR, ["4"])], ("model",))
    assert np.isnan(found.parts).all() and found.faults == []
    with pytest.raises(Refused, match="of your own is called 'model'"):
        graded([(FOUR, ["4"])], ("model",), model=lambda *texts: 1.0)
