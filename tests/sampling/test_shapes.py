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
    assert shapes.ladder(4, 8, 16, 4) == [(4, 8), (24, 1), (16, 1), (12, 1)]
    # 192 rows of 16 questions of 512: √(2 · 2 · 12) = 6.9, nearest 8
    assert shapes.ladder(16, 16, 512, 3) == [(16, 16), (24, 8), (32, 4)]
    assert shapes.ladder(1, 1, 16, 6) == [(1, 1)]


@hypothesis.given(
    st.integers(1, 40), st.integers(1, 80), st.integers(1, 4096), st.integers(1, 9)
)
def test_a_ladder_begins_with_whole_groups_and_falls(questions, group, prompt, rungs):
    made = shapes.ladder(questions, group, prompt, rungs)
    assert made[0] == (questions, group) and len(made) <= rungs
    sizes = [shape.size for shape in made]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert all(shape.rows <= group for shape in made)


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
