"""Labels of steps and what they are like, by hand."""

import numpy as np
import pytest

from grpo_jax import accuracy, plots, shepherd
from grpo_jax.data import arithmetic

QUESTION = "Start with 5. Add 3. Multiply by 2. What is the result?"
RIGHT = ["5 + 3 = 8", "8 * 2 = 16", "#### 16"]
WRONG = ["5 + 3 = 9", "9 * 2 = 18", "#### 18"]
LATE = ["5 + 3 = 8", "8 * 2 = 18", "#### 18"]
MENDED = ["5 + 3 = 9", "8 * 2 = 16", "#### 16"]


def solution(sample, steps, *found):
    return {"sample": sample, "completion": "\n".join(steps), "steps": steps} | {
        "found": [one and list(one) for one in found]
    }


ROWS = [
    {
        "number": 0,
        "question": QUESTION,
        "answer": "16",
        "drawn": 4,
        "ended": 3,
        "prefixes": 5,
        "solutions": [
            solution(0, RIGHT, (2, 4), (4, 4), (1, 1)),
            solution(2, WRONG, (1, 4), (0, 4), (0, 1)),
            solution(3, LATE, (2, 4), None, (0, 1)),
        ],
    },
    {
        "number": 1,
        "question": QUESTION,
        "answer": "16",
        "drawn": 4,
        "ended": 2,
        "prefixes": 2,
        "solutions": [solution(1, MENDED, (0, 4), (3, 3), (1, 1))],
    },
    {
        "number": 2,
        "question": QUESTION,
        "answer": "16",
        "drawn": 4,
        "ended": 0,
        "prefixes": 0,
        "solutions": [],
    },
]


@pytest.mark.parametrize(
    ("right", "of", "hard", "soft"),
    [(0, 8, 0.0, 0.0), (1, 8, 1.0, 1 / 8), (6, 8, 1.0, 3 / 4), (0, 0, None, None)],
)
def test_a_step_is_good_if_any_completion_is_right_and_softly_by_their_share(
    right, of, hard, soft
):
    assert shepherd.hard(right, of) == hard and shepherd.soft(right, of) == soft


def test_labels_of_solutions():
    found = shepherd.labelled(shepherd.solutions(ROWS), "hard")
    assert [row["labels"] for row in found] == [
        [1, 1, 1],
        [1, 0, 0],
        [1, None, 0],
        [0, 1, 1],
    ]
    assert found[0]["question"] == QUESTION and found[1]["steps"] == WRONG
    found = shepherd.labelled(shepherd.solutions(ROWS), "soft")
    assert [row["labels"] for row in found] == [
        [1 / 2, 1, 1],
        [1 / 4, 0, 0],
        [1 / 2, None, 0],
        [0, 1, 1],
    ]


def value(right, of):
    """Of questions with so many."""
    found = accuracy.clustered(np.array(right, float), np.array(of))
    return {"of": sum(of)} | found._asdict()


def test_the_numbers_of_labels_by_hand():
    found = shepherd.summary(ROWS, 4, is_chain=False)
    counts = {"questions": 3, "drawn": 12, "ended": 5, "solutions": 4, "steps": 12}
    counts |= {"labelled": 11, "prefixes": 7, "completions": 28}
    assert found.items() >= counts.items() and "truth" not in found
    assert found["right"] == value([1, 1], [3, 1])
    assert found["good"] == value([5, 2], [8, 3])
    places = [(1, [3, 0], [3, 1]), (2, [1, 1], [2, 1]), (3, [1, 1], [3, 1])]
    soft = (1 / 2 + 1 / 4 + 1 / 2 + 0) / 4, (1 + 0 + 1) / 3, 2 / 4
    assert found["by_place"] == [
        {"place": i, "soft": s} | value(right, of)
        for (i, right, of), s in zip(places, soft, strict=True)
    ]
    assert found["soft"] == [2, 1, 2, 0, 2]  # before the last: 0, 1/4, 1/2, 3/4, 1


def test_what_is_good_behind_what_is_bad_is_counted():
    """Of WRONG one step stands behind the first bad one, of MENDED two, both good; of
    LATE none does: the step that is not labelled is not bad."""
    found = shepherd.summary(ROWS, 4, is_chain=False)
    assert found["violations"] == 2
    assert found["good_behind_bad"] == value([0, 2], [1, 2])
    assert found["solutions_with_good_behind_bad"] == value([0, 1], [3, 1])


def test_labels_are_compared_with_what_is_true_of_chains():
    """RIGHT is true throughout, of LATE the first step; all of the others is false.

    Hard labels are 1 1 1, 1 0 0, 1 - 0, 0 1 1.
    """
    found = shepherd.summary(ROWS, 4, is_chain=True)["truth"]
    every, before = found["all"], found["before_last"]
    assert every["agreement"] == value([3 + 2 + 2, 1], [3 + 3 + 2, 3])
    assert every["good_of_true"] == value([4], [4])
    assert every["good_of_false"] == value([1, 2], [4, 3])
    assert before["agreement"] == value([2 + 1 + 1, 1], [2 + 2 + 1, 2])
    # True are 1/2, 1 and 1/2; false 1/4, 0, 0 and 1: of four 3, 3.5 and 3 are below.
    above = 3 + 3.5 + 3
    np.testing.assert_allclose(before["auc"]["value"], above / 12)
    scores = np.array([1 / 2, 1, 1 / 4, 0, 1 / 2, 0, 1])
    truth = np.array([1, 1, 0, 0, 1, 0, 0], bool)
    expected = accuracy.auc_clustered(scores, truth, np.array([0] * 5 + [1] * 2))
    assert before["auc"] == expected._asdict()


def test_where_nothing_is_labelled_there_are_no_shares():
    found = shepherd.summary(ROWS[2:], 4, is_chain=True)
    nothing = {"of": 0, "value": None, "low": None, "high": None}
    assert found["right"] == found["good"] == nothing and found["by_place"] == []
    assert found["truth"]["all"]["auc"]["value"] is None
    assert found["soft"] == [0] * 5


def test_every_row_of_the_data_of_chains_is_told_as_it_was_made():
    """Demonstrations are true, and flawed ones up to their first mistake."""
    for number in range(30):
        made = arithmetic.chain(0, number, 3)
        lines = made.demonstration.split("\n")
        assert arithmetic.held(made.question, made.answer, lines) == [True] * 4
        flawed = arithmetic.flawed_chain(0, number, 3)
        held = arithmetic.held(made.question, made.answer, flawed.lines)
        assert held == [i < flawed.first for i in range(4)]


@pytest.mark.parametrize("rows", [ROWS, ROWS[2:]])
def test_the_figure_is_drawn(rows, tmp_path):
    found = shepherd.summary(rows, 4, is_chain=True)
    paths = [tmp_path / "a" / "one.png", tmp_path / "two.png"]
    one, two = (plots.labels(found, path).read_bytes() for path in paths)
    assert one == two and one.startswith(b"\x89PNG")
