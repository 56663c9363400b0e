"""Steps as arrays, as numbers and in a table, by hand."""

import jax
import numpy as np
import pytest

from grpo_jax import stepped
from grpo_jax.rewards.stepwise import Stepped

NAN = float("nan")


def one(*steps):
    """Of (end, reward) each."""
    ends, reward = zip(*steps, strict=True)
    texts = [f"step {end}" for end in ends]
    return Stepped(texts, np.array(ends, np.int32), np.array(reward, float))


GROUPS = [[one((1, 0.5), (4, 1.0)), None], [one((0, NAN)), one((2, -3.0), (3, 1.0))]]


def test_arrays_hold_each_step_in_its_place():
    found = stepped.arrays(GROUPS)
    reward, end, is_step = found["step_reward"], found["step_end"], found["is_step"]
    assert reward.shape == end.shape == is_step.shape == (2, 2, 16)
    np.testing.assert_array_equal(is_step.sum(-1), [[2, 0], [1, 2]])
    np.testing.assert_array_equal(reward[0, 0, :3], [0.5, 1, 0])
    np.testing.assert_array_equal(reward[1, :, 0], [NAN, -3])
    np.testing.assert_array_equal(end[0, 0, :3], [1, 4, 0])
    np.testing.assert_array_equal(end[1, 1, :3], [2, 3, 0])
    assert reward.dtype == np.float32
    with jax.enable_x64(True):
        assert stepped.arrays(GROUPS)["step_reward"].dtype == np.float64


@pytest.mark.parametrize(("count", "size"), [(1, 16), (16, 16), (17, 24), (25, 32)])
def test_they_have_one_of_few_sizes(count, size):
    many = [[one(*((i, 1.0) for i in range(count))), one((0, 0.0))]]
    assert stepped.arrays(many)["is_step"].shape == (1, 2, size)


def test_numbers_are_of_what_was_drawn_and_what_is_known():
    found = stepped.numbers(GROUPS)
    assert found == {"samples/steps": 5 / 3, "steps/reward": pytest.approx(-0.5 / 4)}
    assert np.isnan(stepped.numbers([[one((0, NAN))]])["steps/reward"])


def test_a_table_tells_each_step_with_its_advantage():
    advantage = np.array([2.0, 2.0, -1.0, 0.0])
    assert stepped.rows(one((1, 0.5), (2, NAN)), advantage) == [
        {"text": "step 1", "end": 1, "reward": 0.5, "advantage": 2.0},
        {"text": "step 2", "end": 2, "reward": None, "advantage": -1.0},
    ]
