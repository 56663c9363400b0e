"""Groups and their rewards, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config, groups
from grpo_jax.advantages import estimate
from grpo_jax.data.problem import Problem
from grpo_jax.groups import Group
from grpo_jax.pool import Answers, Question
from grpo_jax.rewards.stepwise import Stepped
from grpo_jax.text import diversity

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


def settings(weights=(), advantage=None, **rewards):
    return config.Config(
        rewards=config.Rewarding(**rewards),
        algorithm=config.Algorithm(
            group_size=2,
            advantage=config.Advantage(reward_weights=weights, **(advantage or {})),
        ),
        sampling=config.Sampling(max_new=12),
    )


def test_rewards_of_tokens_come_last_and_are_no_part_of_the_total():
    chosen = settings(overlong=4, repetition=1, weights=(1.0, 0.5, 2.0, 1.0))
    one = group((12, 3), ((1.0, 0.5), (0.0, 1.0)))  # of a single token, repeated
    given = groups.rewards(chosen, [""], [one], 12)
    expected = [[1, 0.5, -1, 1 / 12 - 1], [0, 1, 0, 1 / 3 - 1]]
    np.testing.assert_allclose(given.parts[0], expected, 1e-6)
    np.testing.assert_array_equal(groups.total(chosen, one.parts), [1.25, 0.5])
    np.testing.assert_array_equal(groups.total(settings(), one.parts), [1.5, 1])


def test_a_sample_that_could_not_be_scored_has_no_penalty_for_its_reward():
    one = group((12, 12), ((NAN,), (1.0,)))
    given = groups.rewards(settings(overlong=4), [""], [one], 12)
    np.testing.assert_array_equal(given.parts[0], [[NAN, NAN], [1, -1]])


def test_cosine_takes_the_first_function_s_word_before_it_is_clipped():
    # At 6 of 12 tokens half the way: between 1 and 0.5, or between −1 and −0.5.
    chosen = settings(cosine=12, clip=(0.0, 0.4))
    one = group((6, 6), ((1.0,), (0.0,)))
    given = groups.rewards(chosen, [""], [one], 12)
    np.testing.assert_allclose(given.parts[0], [[0.4, 0.75], [0, -0.75]])
    strict = settings(cosine=12, advantage={"correct_above": 1.5})
    given = groups.rewards(strict, [""], [one], 12)
    np.testing.assert_allclose(given.parts[0], [[1, -0.75], [0, -0.75]])


def test_each_reward_is_clipped_before_it_is_weighed():
    chosen = settings(clip=(-1.0, 2.0), weights=(0.5, 1.0))
    one = group(parts=((5.0, -3.0), (NAN, 0.5)))
    given = groups.rewards(chosen, [""], [one], 12)
    np.testing.assert_array_equal(given.parts[0], [[2, -1], [NAN, 0.5]])
    np.testing.assert_array_equal(groups.total(chosen, one.parts), [0, NAN])
    found = groups.numbers(chosen, ["a", "b"], [one])
    assert found["reward/a"] == 5 and found["samples/clipped"] == 0.5
    row, _ = groups.table(chosen, ["a", "b"], [one], np.zeros((1, 2, 12)))
    assert row["rewards"] == {"a": 5.0, "b": -3.0}


@pytest.mark.parametrize(
    ("parts", "unscored", "of_gdpo"),
    [
        (((1.0, 1.0), (0.0, 1.0)), 0, 0),
        (((NAN, NAN), (0.0, 1.0)), 1, 1),
        (((NAN, 1.0), (0.0, 1.0)), 1, 0),  # it lacks what the other has
        (((NAN, 1.0), (NAN, 0.0)), 0, 0),  # what no sample has does not apply
        (((NAN, 1.0), (0.0, NAN)), 2, 0),
        (((NAN, NAN), (NAN, NAN)), 2, 2),
    ],
)
def test_samples_are_unscorable_as_they_are_to_the_devices(parts, unscored, of_gdpo):
    apart = {"normalise_each": True}
    for chosen, count in ((settings(), unscored), (settings(advantage=apart), of_gdpo)):
        one = group(parts=parts)
        assert groups.unscored(chosen, one) == count
        given = groups.rewards(chosen, [""], [one], 12)
        given = jax.tree.map(jnp.asarray, given)
        found = estimate.estimate(chosen.algorithm, given, beta=0.0)
        assert 2 - int(found.is_valid.sum()) == count
        reward = groups.reward(chosen, one, one.answers.length > 0)
        assert np.isnan(reward).sum() == count


def test_a_sample_that_was_not_drawn_is_not_unscorable():
    one = group((3, 0), ((1.0, 0.0), (NAN, NAN)))
    assert groups.unscored(settings(), one) == 0


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
    told = groups.numbers(settings(overlong=12), ["a", "b"], several)
    various = {name: told.pop(name) for name in diversity.NAMES}
    assert told == {
        "reward/a": 0.5,
        "reward/b": 0.25,
        "reward/overlong": pytest.approx(-(3 + 4 + 12) / 12 / 3),
        "unscored/a": pytest.approx(1 / 3),
        "unscored/b": pytest.approx(1 / 3),
        "samples/tokens": 19,
        "samples/truncated": pytest.approx(1 / 3),
        "groups/found": 0.5,
    }
    # Tokens are all alike: one of 2 bigrams, one of 3 + 11. The first has no pair.
    expected = 1, pytest.approx((1 / 2 + 1 / 14) / 2), 0
    assert tuple(various.values()) == expected
    blind = [group(parts=((NAN,), (NAN,)))]
    assert np.isnan(groups.numbers(settings(), ["a"], blind)["reward/a"])


def test_a_table_has_a_row_for_each_sample():
    one = group((2, 0), ((1.0, NAN), (NAN, NAN)), number=7)
    advantage = np.arange(24.0).reshape(1, 2, 12)
    (row,) = groups.table(settings(overlong=12), ["a", "b"], [one], advantage)
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


def test_what_is_right_is_told_beside_what_a_model_gives():
    """Of the samples that were drawn; what failed is not known, and none is a reward."""
    chosen = settings(weights=(1.0, 0.5))
    parts = (1.0, 2.0), (3.0, NAN), (NAN, NAN)
    one = group((2, 3, 0), parts, (True,) * 3, right=np.array([0.0, 1.0, NAN]))
    two = group((2, 3, 3), parts, (True,) * 3, right=np.array([1.0, NAN, 1.0]))
    told = groups.numbers(chosen, ["a", "b"], [one, two])
    assert told["samples/right"] == 3 / 4
    assert "samples/right" not in groups.numbers(settings(), ["a"], [group()])
    given = groups.table(chosen, ["a", "b"], [one, two], np.zeros((2, 3, 12)))
    assert [row["right"] for row in given] == [False, True, True, None, True]
    # Weighed; unscorable is what lacks a reward that others of its question have.
    assert [row["reward"] for row in given] == [2.0, None, 2.0, None, None]
    assert (
        not {"reward", "right"}
        & groups.table(
            chosen,
            ["a", "b"],
            [group(parts=((1.0, 0.0), (0.0, 0.0)))],
            np.zeros((1, 2, 12)),
        )[0].keys()
    )
    learned = groups.rewards(chosen, [""], [one], 12)
    np.testing.assert_array_equal(learned.parts[0], parts)


def test_in_process_supervision_a_sample_is_worth_the_mean_of_its_steps():
    steps = [
        Stepped(["a", "b"], np.array([0, 2], np.int32), np.array(x, float))
        for x in ([1, 2], [NAN, 4], [NAN, NAN])
    ]
    one = group((3, 3, 3), ((0.0,),) * 3, (True,) * 3, steps=steps, right=np.zeros(3))
    given = groups.table(settings(), ["a"], [one], np.zeros((1, 3, 12)))
    assert [row["reward"] for row in given] == [1.5, 4.0, None]


def test_a_row_that_is_dropped_makes_no_group_mixed():
    cut = group(parts=((1.0,), (0.0,)), ended=(True, False))
    assert groups.is_mixed(settings(), cut)
    assert not groups.is_mixed(settings(truncated="dropped"), cut)
