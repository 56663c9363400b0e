"""One group: every estimator and scale by hand, and what must hold for all of them."""

from typing import get_args

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from grpo_jax import algorithm, config
from grpo_jax.advantages import group

CENTRED = sorted(algorithm.CENTRED)
EVERY = sorted(group.ESTIMATORS)
SCALED = [
    (estimator, scale)
    for estimator in EVERY
    for scale in ("none", "group", "others")
    if scale == "none" or estimator in algorithm.SCALABLE
]
NAN = float("nan")


def make(reward, is_valid=None, length=None, baseline=0.0):
    reward = jnp.asarray(reward, float)
    n = reward.size
    return group.Group(
        reward,
        jnp.asarray([True] * n if is_valid is None else is_valid),
        jnp.asarray([1] * n if length is None else length),
        jnp.asarray(float(baseline)),
    )


def settings(estimator="mean", scale="none", **options):
    return config.Advantage(estimator=estimator, scale_rewards=scale, **options)


def value(reward, estimator="mean", scale="none", *, make_options=None, **options):
    """compare, then scale: one group's advantages."""
    made = make(reward, **(make_options or {}))
    chosen = settings(estimator, scale, **options)
    return np.asarray(group.scale(group.compare(made, chosen), made, chosen))


def near(actual, expected):
    np.testing.assert_allclose(actual, expected, 1e-5, 1e-6)


def test_every_choice_has_a_function_and_every_function_a_choice():
    assert set(group.ESTIMATORS) | {"gae"} == set(get_args(algorithm.Estimator))


@pytest.mark.parametrize(
    ("estimator", "reward", "expected", "options"),
    [
        ("mean", [1, 0, 0, 1, 3], [0, -1, -1, 0, 2], {}),
        # baselines 2.5, 2, 1.5: the mean of the other two
        ("leave_one_out", [1, 2, 3], [-1.5, 0, 1.5], {}),
        ("none", [1, -2], [1, -2], {}),
        ("best_minus_second", [1, 0, 0.5, 0.2], [0.5, 0, 0, 0], {}),
        ("best_minus_second", [0.3, 0.3, 0.1], [0, 0, 0], {}),
        # ranks 0, 1.5, 1.5, 3 of four, minus 1.5, over 3
        ("rank", [-5, 2, 2, 7], [-0.5, 0, 0, 0.5], {}),
        ("rank", [1, 0, 5], [0, -0.5, 0.5], {}),
        ("rank", [1, 3], [-0.5, 0.5], {}),
        ("max_rl", [1, 0, 0, 0], [3, -1, -1, -1], {}),
        ("max_rl", [-1, 0, 0, 0], [0, 0, 0, 0], {}),  # the mean is not positive
        ("softmax", [1, 0], [np.e / (1 + np.e), 1 / (1 + np.e)], {}),
        ("softmax", [1, 0, 0], [0.7870, 0.1065, 0.1065], {"reward_temperature": 0.5}),
        ("indicator", [1, 0, 0.6], [1, 0, 1], {}),
        (
            "indicator",
            [1, 0, 0.6],
            [1, -1, -1],
            {"wrong_weight": -1, "correct_above": 0.7},
        ),
    ],
)
def test_estimators_by_hand(estimator, reward, expected, options):
    np.testing.assert_allclose(
        value(reward, estimator, **options), expected, 1e-3, 1e-6
    )


def test_estimators_that_look_at_more_than_rewards():
    # lengths 1, 3: (0·1 + 1·3)/4 = 0.75
    near(
        value([0, 1], "length_weighted", make_options={"length": [1, 3]}), [-0.75, 0.25]
    )
    near(value([0, 1], "length_weighted", make_options={"length": [0, 1]}), [-1, 0])
    near(value([0, 1], "given", make_options={"baseline": 0.25}), [-0.25, 0.75])


@pytest.mark.parametrize(
    ("reward", "options", "expected"),
    [
        ([1, 3], {}, [-1, 1]),  # std over n
        ([1, 3], {"ddof": 1}, [-(0.5**0.5), 0.5**0.5]),
        ([1, 0, 0, 0], {"ddof": 1}, [1.5, -0.5, -0.5, -0.5]),
        ([1, 0, 0, 0, 0], {}, [2, -0.5, -0.5, -0.5, -0.5]),
        ([0, 2], {"eps": 0.5}, [-1 / 1.5, 1 / 1.5]),
        ([0, 2], {"eps": 0.5, "eps_at": "floor"}, [-1, 1]),
        ([0, 2], {"eps": 4.0, "eps_at": "floor"}, [-0.25, 0.25]),
        ([0, 2], {"eps": 3.0, "eps_at": "under_root"}, [-0.5, 0.5]),
    ],
)
def test_dividing_by_the_groups_std(reward, options, expected):
    near(value(reward, scale="group", **({"eps": 0.0} | options)), expected)


def test_nemos_form_divides_by_the_std_of_the_others():
    # others' std with ddof 1: 0.7071, 1.4142, 0.7071; leave-one-out ∓1.5, 0
    got = value([1, 2, 3], "leave_one_out", "others", ddof=1, eps=0.0)
    near(got, [-1.5 / 0.5**0.5, 0, 1.5 / 0.5**0.5])
    # of two, the other alone has no std: not divided
    near(value([1, 3], "leave_one_out", "others", ddof=1, eps=0.0), [-2, 2])


@pytest.mark.parametrize("estimator", CENTRED)
def test_a_group_of_one_gets_zero_or_its_reward(estimator):
    alone = {"make_options": {"is_valid": [False, True]}}
    assert value([9, 0.7], estimator, **alone).tolist() == [0, 0]
    near(value([9, 0.7], estimator, group_of_one="raw", **alone), [0, 0.7])


def test_a_group_of_one_has_a_std_of_one():
    alone = {"make_options": {"is_valid": [False, True]}, "group_of_one": "raw"}
    near(value([9, 0.7], scale="group", eps=0.4, **alone), [0, 0.5])


@pytest.mark.parametrize(
    ("estimator", "scale"), [pair for pair in SCALED if pair[0] in CENTRED]
)
@pytest.mark.parametrize(("n", "constant"), [(64, 0.7), (16, 0.1), (3, -1.3), (5, 1e8)])
def test_a_group_that_agrees_gets_exactly_zero(estimator, scale, n, constant):
    # In float32 the mean of 64 times 0.7 is not 0.7, and a z-score would make 0.1 of it.
    length = {"length": list(range(1, n + 1))}
    got = value(np.full(n, constant, np.float32), estimator, scale, make_options=length)
    assert not np.any(got)


@hypothesis.given(st.floats(-1e6, 1e6, width=32), st.sampled_from(CENTRED))
def test_any_constant_gives_exactly_zero(constant, estimator):
    assert not np.any(value(np.full(7, constant, np.float32), estimator))


def test_what_the_others_give_a_group_that_agrees():
    near(value([0.7] * 4, "softmax"), [0.25] * 4)
    near(value([0.7] * 4, "indicator"), [1] * 4)
    near(value([0.2] * 4, "indicator", wrong_weight=-1.0), [-1] * 4)
    near(value([0.7] * 4, "none"), [0.7] * 4)
    near(value([0.7] * 4, "given", make_options={"baseline": 0.5}), [0.2] * 4)


@pytest.mark.parametrize("poison", [NAN, np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize(("estimator", "scale"), SCALED)
def test_masked_samples_enter_no_statistic(estimator, poison, scale):
    for shift in (0.0, -0.2, -2.0):  # a masked 0 would be in the middle, tied, or best
        known = np.array([1.0, 0.2, 0.7]) + shift
        clean = {"length": [2, 1, 4], "baseline": 0.3}
        expected = value(known, estimator, scale, make_options=clean)
        options = clean | {
            "length": [2, 9, 1, 4, 9],
            "is_valid": [True, False, True, True, False],
        }
        reward = [known[0], poison, *known[1:], poison]
        got = value(reward, estimator, scale, make_options=options)
        near(got[[0, 2, 3]], expected)
        assert got[1] == got[4] == 0


@pytest.mark.parametrize("estimator", EVERY)
def test_nothing_valid_gives_zeros(estimator):
    got = value([1.0, NAN], estimator, make_options={"is_valid": [False, False]})
    assert got.tolist() == [0, 0]


@pytest.mark.parametrize("n", [2, 16, 64])
def test_a_spread_of_zero_divides_nothing(n):
    # in float32 the std of 64 times 0.7, by its formula, is 6e-8 and not 0
    reward = np.full(n, 0.7, np.float32)
    options = {"make_options": {"baseline": 0.5}, "eps": 0.0}
    near(value(reward, "given", "group", **options), np.full(n, 0.2))
    reward = np.append(reward, np.float32(1.7))  # the last one's others agree
    got = value(reward, "leave_one_out", "others", eps=0.0)
    near(got[-1], 1.0)


REWARDS = st.lists(st.integers(-8, 8).map(lambda i: i / 8), min_size=6, max_size=6)


@hypothesis.given(REWARDS, st.permutations(range(6)), st.sampled_from(EVERY))
def test_permuting_the_group_permutes_the_values(reward, order, estimator):
    reward, order = np.array(reward), np.array(order)
    length = np.arange(1, 7)
    plain = value(reward, estimator, make_options={"length": length, "baseline": 0.1})
    moved = value(
        reward[order],
        estimator,
        make_options={"length": length[order], "baseline": 0.1},
    )
    near(moved, plain[order])


@hypothesis.given(REWARDS, st.integers(1, 9), st.integers(-5, 5))
def test_a_z_score_feels_neither_shift_nor_positive_scale(reward, a, b):
    plain = value(reward, scale="group", eps=0.0)
    moved = value(a * np.array(reward) + b, scale="group", eps=0.0)
    np.testing.assert_allclose(moved, plain, 1e-3, 1e-4)


@hypothesis.given(REWARDS, st.sampled_from(["mean", "leave_one_out", "rank", "max_rl"]))
def test_centred_values_add_up_to_zero(reward, estimator):
    assert abs(value(reward, estimator).sum()) < 1e-4


@hypothesis.given(REWARDS)
def test_leave_one_out_is_a_multiple_of_the_mean_form(reward):
    near(value(reward, "leave_one_out"), value(reward, "mean") * 6 / 5)


@hypothesis.given(REWARDS)
def test_softmax_weights_are_a_distribution(reward):
    weight = value(reward, "softmax")
    assert (weight > 0).all() and abs(weight.sum() - 1) < 1e-5


def test_softmax_of_large_rewards_does_not_overflow():
    near(value([1e4, 1e4 - 1.0], "softmax"), [np.e / (1 + np.e), 1 / (1 + np.e)])
