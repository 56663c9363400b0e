"""Groups are cut into steps and graded in their places, and faults are told."""

import numpy as np
import pytest

from grpo_jax.data.problem import Problem
from grpo_jax.rewards import stepwise
from grpo_jax.rewards.settings import Rewarding
from grpo_jax.section import Refused
from grpo_jax.text.tokenizer import Bytes

ASKED = Problem("q", "a")
END = Bytes.stop_ids[0]


def group(*texts):
    """Tokens, lengths and texts, as they are sampled; each comes to an end."""
    ids = [[] if x is None else [*Bytes().encode(x), END] for x in texts]
    tokens = np.zeros((len(ids), 40), np.int32)
    for row, one in zip(tokens, ids, strict=True):
        row[: len(one)] = one
    ended = [True] * len(ids)
    return tokens, np.array(list(map(len, ids))), list(texts), ended


def graded(rule, *groups, **options):
    settings = Rewarding(steps="own", **options)
    grader = stepwise.StepGrader(settings, {"own": rule}, Bytes())
    return grader.collect([grader.submit(ASKED, *group(*x)) for x in groups])


def test_each_step_has_its_reward_and_its_last_token():
    def rule(question, steps, answer):
        assert (question, answer) == ("q", "a")
        return [len(step) for step in steps]

    found = graded(rule, ["ab\nc", None], ["", "\n\nabc\n"])
    assert found.faults == []
    (one, none), (empty, late) = found.groups
    assert none is None
    for given, texts, ends, reward in (
        (one, ["ab", "c"], [2, 4], [2, 1]),
        (empty, [""], [0], [0]),
        (late, ["abc"], [6], [3]),
    ):
        assert given.texts == texts
        np.testing.assert_array_equal(given.ends, ends)
        np.testing.assert_array_equal(given.reward, reward)


def test_a_step_that_was_cut_is_judged_without_what_may_be_unfinished(monkeypatch):
    """`#### 1` may have been going to be `#### 12`, and `= 7` to be `= 75`."""
    asked = []
    rule = lambda question, steps, answer: asked.append(steps) or [0.0] * len(steps)  # noqa: E731
    settings = Rewarding(steps="chain", workers=1)
    *given, _ = group("3 + 4 = 7\n#### 7", "3 + 4 = 7")
    whole, cut = [["3 + 4 = 7", "#### 7"], ["3 + 4 = 7"]], [["3 + 4 = 7", ""]]
    monkeypatch.setitem(stepwise.RULES, "chain", rule)
    for own, ended, expected in (
        ({}, True, whole),
        ({}, False, [*cut, ["3 + 4 = "]]),
        ({"chain": rule}, False, whole),  # one's own sees what there is
    ):
        grader = stepwise.StepGrader(settings, own, Bytes())
        grader.collect([grader.submit(ASKED, *given, [ended] * 2)])
        assert asked == expected
        asked.clear()


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([1.0], r"own returned '[1.0]' for 2 steps"),
        ([1.0, 2.0, 3.0], r"own returned '[1.0, 2.0, 3.0]' for 2 steps"),
        (1.0, "own returned '1.0' for 2 steps"),
        (None, "own returned 'None' for 2 steps"),
        ("ab", "own returned 'ab' for 2 steps"),
        ([1.0, "x"], "own returned 'x', no finite number"),
        ([1.0, float("inf")], "own returned 'inf', no finite number"),
    ],
)
def test_what_is_no_number_for_each_step_leaves_all_unscored(value, fault):
    found = graded(lambda q, s, a: value if s[0] == "b" else [1, 1], ["a\nb", "b\na"])
    ((right, wrong),) = found.groups
    assert found.faults == [fault]
    np.testing.assert_array_equal(right.reward, [1, 1])
    np.testing.assert_array_equal(wrong.reward, [np.nan, np.nan])


def test_a_rule_that_raises_is_told():
    found = graded(lambda q, s, a: [1 / len(x) for x in s], ["", "ab"])
    assert found.faults == ["own raised ZeroDivisionError: division by zero"]
    ((empty, right),) = found.groups
    assert np.isnan(empty.reward).all() and right.reward == [0.5]


@pytest.mark.parametrize("of", [list, tuple, np.array])
def test_a_step_of_which_it_cannot_tell_is_unscored_alone(of):
    found = graded(lambda q, s, a: of([1.0, np.nan, True, 0]), ["a\nb\nc\nd"])
    np.testing.assert_array_equal(found.groups[0][0].reward, [1, np.nan, 1, 0])
    found = graded(lambda q, s, a: [None, 2], ["a\nb"])
    np.testing.assert_array_equal(found.groups[0][0].reward, [np.nan, 2])
    assert found.faults == []


def test_a_rule_changes_nothing_but_its_own_list():
    def rule(question, steps, answer):
        return [float(len(steps.pop())), *[0.0] * len(steps)]

    (one,) = graded(rule, ["ab\nc"]).groups[0]
    assert one.texts == ["ab", "c"]
    np.testing.assert_array_equal(one.reward, [1, 0])


def test_the_rules_there_are_are_listed_where_none_is_named():
    for name in (None, "mine"):
        with pytest.raises(
            Refused, match=r"'process', and .* named chain, own, model\. .*STEP"
        ):
            settings = Rewarding(steps=name)
            stepwise.StepGrader(settings, {"own": lambda *x: []}, Bytes())


def test_steps_of_a_reward_model_are_cut_and_left_unscored():
    """What it says comes of the devices; nothing of the host is asked, or fails."""
    grader = stepwise.StepGrader(Rewarding(steps="model"), {}, Bytes())
    found = grader.collect([grader.submit(ASKED, *group("ab\nc", None))])
    ((one, none),) = found.groups
    assert none is None and found.faults == [] and one.texts == ["ab", "c"]
    np.testing.assert_array_equal(one.ends, [2, 4])
    np.testing.assert_array_equal(one.reward, [np.nan, np.nan])
    with pytest.raises(Refused, match="rule of your own is called 'model'"):
        own = {"model": lambda *x: []}
        stepwise.StepGrader(Rewarding(steps="model"), own, Bytes())


def test_ones_own_rule_may_take_the_name_of_a_known_one():
    settings = Rewarding(steps="chain")
    own = {"chain": lambda question, steps, answer: [3.0]}
    grader = stepwise.StepGrader(settings, own, Bytes())
    (one,) = grader.collect([grader.submit(ASKED, *group("a"))]).groups[0]
    assert one.reward == [3]
