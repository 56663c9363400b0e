"""The order of the data and what is held out are functions of a number and a text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax.data import problem


@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_every_epoch_has_every_row_once(seed, n):
    for epoch in (0, 1):
        rows = [problem.row(seed, epoch * n + i, n) for i in range(n)]
        assert sorted(rows) == list(range(n))


def test_orders_differ_between_epochs_and_seeds():
    orders = [problem.order(*which, 50) for which in ((0, 0), (0, 1), (1, 0))]
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_the_order_is_the_same_forever():
    """By Philox's own bits: these numbers may never change, or no run resumes."""
    assert problem.order(0, 0, 5).tolist() == [0, 2, 1, 4, 3]


def test_a_share_is_held_out_by_text():
    questions = [f"What is {i} + 1?" for i in range(2000)]
    held = [q for q in questions if problem.is_held_out(q, 0.1)]
    assert 150 < len(held) < 250
    more = [q for q in questions if problem.is_held_out(q, 0.2)]
    assert set(held) < set(more)
    assert not any(problem.is_held_out(q, 0.0) for q in questions)
    assert all(problem.is_held_out(q, 1.0) for q in questions)
