"""Few shapes: every rollout fits one of them, and none is much too large."""

import hypothesis
import hypothesis.strategies as st
import pytest

from grpo_jax.sampling import shapes


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, 16), (16, 16), (17, 24), (25, 32), (33, 48), (49, 64), (512, 512), (513, 768)],
)
def test_lengths_are_bucketed(n, expected):
    assert shapes.length(n) == expected


@pytest.mark.parametrize(
    ("most", "n", "expected"),
    [
        *((64, 64, 64), (64, 49, 64), (64, 48, 48), (64, 33, 48), (64, 32, 32)),
        *((64, 24, 24), (64, 1, 16), (40, 1, 20), (10, 3, 10), (72, 52, 54)),
    ],
)
def test_halves_and_quarters_by_hand(most, n, expected):
    assert shapes.shortened(most, n) == expected


@hypothesis.given(st.integers(1, 5000), st.data())
def test_what_is_shortened_holds_and_is_at_most_half_as_long_again(most, data):
    n = data.draw(st.integers(1, most))
    assert n <= shapes.shortened(most, n) <= max(1.5 * n + 2, 31)


def test_few_shapes_serve_many_numbers_of_questions():
    assert [shapes.few(n) for n in (1, 2, 3, 4, 5, 7, 9, 13)] == [
        1,
        2,
        3,
        4,
        6,
        8,
        12,
        16,
    ]


@hypothesis.given(st.integers(17, 100_000))
def test_a_bucket_holds_and_is_at_most_half_as_long_again(n):
    assert n <= shapes.length(n) <= 1.5 * n


def test_a_ladder_by_hand():
    """Short questions: single rows. Long ones: blocks, so that they are read less."""
    # 32 + 24 rows' worth falls to 1 + 24 by 2.24^(1/3): 56, 42.8, 32.7, 25
    assert shapes.ladder(4, 8, 16, 4, by_group=True) == [
        (4, 8),
        (19, 1),
        (9, 1),
        (1, 1),
    ]
    # 280, 83.7, 25; 60 rows of 16 questions of 512: √(2 · 2 · 60/16) = 3.9, nearest 4
    assert shapes.ladder(16, 16, 512, 3, by_group=True) == [(16, 16), (15, 4), (1, 2)]
    # no shape is closer to the next than 1.25: 28/25 and 56/25 need one and four more
    assert shapes.ladder(2, 2, 16, 9, by_group=True) == [(2, 2), (1, 1)]
    assert len(shapes.ladder(4, 8, 16, 9, by_group=True)) == 5
    assert shapes.ladder(1, 1, 16, 6, by_group=True) == [(1, 1)]


def test_where_questions_come_and_go_blocks_are_small_from_the_start():
    """A question of which one row is left must not keep the room of a group."""
    assert shapes.ladder(4, 8, 16, 1, by_group=False) == [(32, 1)]
    assert shapes.ladder(4, 8, 512, 1, by_group=False) == [(8, 4)]  # √(2 · 2 · 8) = 5.7
    assert shapes.ladder(1, 6, 512, 1, by_group=False) == [(3, 2)]  # 4 would not divide


@hypothesis.given(
    st.integers(1, 40),
    st.integers(1, 80),
    st.integers(1, 4096),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_ladder_begins_with_all_rows_and_falls(
    questions, group, prompt, rungs, by_group
):
    made = shapes.ladder(questions, group, prompt, rungs, by_group=by_group)
    assert made[0].holds([group] * questions) and len(made) <= rungs
    assert made[0].size == questions * group
    assert made[0].rows == group or not by_group
    sizes = [shape.size for shape in made]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert all(shape.rows <= group for shape in made)
    assert rungs == 1 or sizes[-1] <= max(made[-1].rows, 1)


def test_a_shape_holds_groups_in_whole_blocks():
    shape = shapes.Shape(4, 8)
    assert shape.holds([8, 8, 8, 8]) and shape.holds([17, 1]) and shape.holds([])
    assert not shape.holds([9, 9, 1]) and not shape.holds([1] * 5)


@pytest.mark.parametrize(
    ("needed", "expected"),
    [(1, 16), (16, 16), (17, 32), (33, 64), (65, 112), (112, 112)],
)
def test_columns_double_up_to_what_is_used(needed, expected):
    assert shapes.columns(needed, segment=16, most=100) == expected
