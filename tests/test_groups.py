"""Groups and their rewards, by hand."""

import numpy as np
import pytest

from grpo_jax import config, groups
from grpo_jax.data.problem import Problem
from grpo_jax.groups import Group
from grpo_jax.pool import Answers, Question

NAN = float("nan")


def group(
    length=(3, 3), parts=((1.0,), (0.0,)), ended=(True, True), number=0, kind="", **more
):
    length, C = np.array(length), 12
    nothing = np.zeros((len(length), C))
    answers = Answers(
        number, nothing.astype(int), length, nothing, nothing, np.array(ended)
    )
    texts = [f"text {i}" if n else None for i, n in enumerate(length)]
    asked = Problem("2+2=", "4", None, kind), Question(number, [1])
    return Group(*asked, answers, texts, np.array(parts), **more)


def settings(overlong=0, truncated="kept", weights=(), functions=()):
    return config.Config(
        rewards=config.Rewarding(
            functions=functions, overlong=overlong, truncated=truncated
        ),
        algorithm=config.Algorithm(
            group_size=2, advantage=config.Advantage(reward_weights=weights)
        ),
        sampling=config.Sampling(max_new=12),
    )


def test_the_penalty_is_dapos_at_its_corners():
    # L_max = 12, L_cache = 4: 0 up to 8, then (8 − length)/4, −1 at 12.
    length = ((1, 8), (9, 10), (11, 12))
    given = [group(one).answers for one in length]
    found = groups.penalty(settings(overlong=4), given)
    np.testing.assert_array_equal(found, [[0, 0], [-0.25, -0.5], [-0.75, -1]])
    np.testing.assert_array_equal(groups.penalty(settings(), given), np.zeros((3, 2)))
    whole = groups.penalty(settings(overlong=12), given)
    np.testing.assert_allclose(whole, -np.array(length) / 12)


def test_the_penalty_is_the_last_reward_and_no_part_of_the_total():
    chosen = settings(overlong=4, weights=(1.0, 0.5, 2.0))
    one = group((12, 3), ((1.0, 0.5), (0.0, 1.0)))
    given = groups.rewards(chosen, [""], [one], 12)
    np.testing.assert_array_equal(given.parts[0], [[1, 0.5, -1], [0, 1, 0]])
    np.testing.assert_array_equal(groups.total(chosen, one.parts), [1.25, 0.5])
    np.testing.assert_array_equal(groups.total(settings(), one.parts), [1.5, 1])


@pytest.mark.parametrize(
    ("parts", "is_mixed"),
    [
        (((1.0,), (0.0,)), True),
        (((0.7,), (0.7,)), False),
        (((NAN,), (0.0,)), False),
        (((NAN,), (NAN,)), False),
        (((1.0, 0.0), (0.0, 1.0)), False),  # their sums are equal
        (((1.0, 0.0), (0.0, 0.5)), True),
        (((1.0, NAN), (0.0, 1.0)), False),
        (((1.0, NAN), (0.0, NAN)), True),  # of what applies
    ],
)
def test_a_group_is_mixed_where_known_rewards_differ(parts, is_mixed):
    """Whatever their lengths are: the penalty would make every group mixed."""
    assert groups.is_mixed(settings(overlong=12), group((3, 9), parts)) is is_mixed


def test_weights_decide_whether_a_group_is_mixed():
    parts = ((1.0, 0.0), (0.0, 1.0))
    assert groups.is_mixed(settings(weights=(1.0, 0.5)), group(parts=parts))


def test_rows_that_are_not_learned_from():
    """Those that were not drawn, those of a stand-in, and cut ones, if so chosen."""
    several = [
        group((3, 0), ((1.0,), (NAN,))),
        group((3, 12), ended=(True, False), number=1),
        group(number=2, is_trained=False),
    ]
    given = groups.rewards(settings(), [""], several, 12)
    expected = [[True, False], [True, True], [False, False]]
    np.testing.assert_array_equal(given.is_valid, expected)
    given = groups.rewards(settings(truncated="dropped"), [""], several, 12)
    expected = [[True, False], [True, False], [False, False]]
    np.testing.assert_array_equal(given.is_valid, expected)
    np.testing.assert_array_equal(
        given.is_completion.sum(-1), [[3, 0], [3, 12], [3, 3]]
    )


def test_groups_can_be_pooled_by_their_kind():
    several = [group(kind="b"), group(kind="a", number=1)]
    given = groups.rewards(settings(), ["a", "b"], several, 12)
    np.testing.assert_array_equal(given.columns["kind"], [1, 0])


def test_numbers_are_of_what_was_drawn():
    several = [
        group((3, 0), ((1.0, 0.5), (NAN, NAN)), (True, False)),
        group((4, 12), ((0.0, NAN), (NAN, 0.0)), (True, False), is_trained=False),
    ]
    assert groups.numbers(["a", "b"], several) == {
        "reward/a": 0.5,
        "reward/b": 0.25,
        "samples/tokens": 19,
        "samples/truncated": pytest.approx(1 / 3),
        "groups/found": 0.5,
    }
    blind = [group(parts=((NAN,), (NAN,)))]
    assert np.isnan(groups.numbers(["a"], blind)["reward/a"])


def test_a_table_has_a_row_for_each_sample():
    one = group((2, 0), ((1.0, NAN), (NAN, NAN)), number=7)
    given = groups.rewards(settings(overlong=12), [""], [one], 12)
    advantage = np.arange(24.0).reshape(1, 2, 12)
    (row,) = groups.table(["a", "b"], [one], given, advantage)
    assert row == {
        "number": 7,
        "sample": 0,
        "question": "2+2=",
        "completion": "text 0",
        "answer": "4",
        "rewards": {"a": 1.0, "b": None, "overlong": pytest.approx(-1 / 6)},
        "advantage": 0.5,  # of its own tokens
        "tokens": 2,
        "ended": True,
    }


def test_a_row_that_is_dropped_makes_no_group_mixed():
    cut = group(parts=((1.0,), (0.0,)), ended=(True, False))
    assert groups.is_mixed(settings(), cut)
    assert not groups.is_mixed(settings(truncated="dropped"), cut)
