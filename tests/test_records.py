"""Records whose fields disagree are refused by name."""

import jax.numpy as jnp
import pytest

from grpo_jax.records import PolicyBatch, Rewards, check_shapes
from grpo_jax.section import Refused


def rewards(**changes):
    good = Rewards(
        parts=jnp.zeros((2, 3, 1)),
        is_completion=jnp.ones((2, 3, 4), bool),
        is_valid=jnp.ones((2, 3), bool),
    )
    return good._replace(**changes)


def test_records_that_agree_pass():
    check_shapes(rewards())
    check_shapes(rewards(step_end=jnp.zeros((2, 3, 5), int), baseline=jnp.zeros(2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"is_valid": jnp.ones((1, 3), bool)},
            r"Rewards.is_valid has shape \(1, 3\), so B",
        ),
        (
            {"is_completion": jnp.ones((2, 4), bool)},
            r"is_completion .*must be \[B G C\]",
        ),
        (
            {"value": jnp.zeros((2, 3, 5))},
            r"so C = 5; but Rewards.is_completion has C = 4",
        ),
        ({"step_end": jnp.zeros((2, 3, 0), int)}, "S is empty"),
    ],
)
def test_a_field_that_disagrees_is_named(changes, message):
    with pytest.raises(Refused, match=message):
        check_shapes(rewards(**changes))


def test_an_empty_group_is_refused():
    empty = Rewards(
        jnp.zeros((2, 0, 1)), jnp.ones((2, 0, 4), bool), jnp.ones((2, 0), bool)
    )
    with pytest.raises(Refused, match="G is empty"):
        check_shapes(empty)


def test_fields_that_are_not_arrays_are_left_alone():
    batch = PolicyBatch(
        jnp.ones((1, 2, 3), bool), jnp.zeros((1, 2, 3)), jnp.ones((1, 2), bool)
    )
    check_shapes(batch)
    check_shapes(rewards(columns={"level": jnp.zeros(2, int)}))
