"""Rows that judge completions, in each form that people publish them."""

import pytest

from grpo_jax.data import verdicts
from grpo_jax.data.verdicts import Preference, Solution, Step


def test_the_part_that_two_dialogues_share_is_the_question():
    begun = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: A pen?\n\nAssistant:"
    row = {"chosen": begun + " No, sorry", "rejected": begun + " No way"}
    assert verdicts.preference(row) == [Preference(begun, " No, sorry", " No way")]


def test_dialogues_that_part_in_an_earlier_turn_part_there():
    begun, turn = "\n\nHuman: Hi\n\nAssistant:", "\n\nHuman: {}\n\nAssistant: ok"
    row = {"chosen": begun + turn.format("a"), "rejected": begun + turn.format("b")}
    (found,) = verdicts.preference(row)
    assert found == (begun, turn.format("a"), turn.format("b"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": "2+2= 4", "rejected": "2+2= 5"}, ("2+2= ", "4", "5")),
        ({"chosen": "Say hello", "rejected": "Say help"}, ("Say ", "hello", "help")),
        ({"chosen": "a b", "rejected": "a b c"}, ("a ", "b", "b c")),
        ({"question": "q", "chosen": "a", "rejected": "b"}, ("q", "a", "b")),
        ({"question": "q", "chosen": "q a", "rejected": "q b"}, ("q", " a", " b")),
        ({"question": "q", "chosen": "q a", "rejected": "b"}, ("q", "q a", "b")),
    ],
)
def test_what_is_asked_and_what_is_preferred(row, expected):
    assert verdicts.preference(row) == [Preference(*expected)]


def test_a_completion_is_judged_as_a_whole():
    row = {"question": "q", "completion": "a\nb", "is_correct": True}
    assert verdicts.whole(row) == [Solution("q", ("a\nb",), (1.0,))]
    row |= {"is_correct": 0.25}
    assert verdicts.whole(row)[0].labels == (0.25,)


def test_several_models_answer_a_question_of_gsm8k():
    row = {"question": "q", "ground_truth": "A: 1"}
    row |= {"6b": {"is_correct": False, "solution": "A: 2"}}
    row |= {"175b": {"is_correct": True, "solution": "A: 1"}}
    expected = [Solution("q", ("A: 2",), (0.0,)), Solution("q", ("A: 1",), (1.0,))]
    assert verdicts.whole(row) == expected


def test_final_answers_of_processbench_are_judged_as_a_whole():
    row = {"problem": "q", "steps": ["a", "b"], "final_answer_correct": False}
    assert verdicts.whole(row | {"label": -1}) == [Solution("q", ("a\nb",), (0.0,))]


def test_the_tags_of_math_shepherd():
    text = "Ann has 3 eggs. How many? Step 1: 1+2=3 ки\nStep 2: The answer is: 4 ки"
    labels = "Ann has 3 eggs. How many? Step 1: 1+2=3 +\nStep 2: The answer is: 4 -"
    expected = "Step 1: 1+2=3", "Step 2: The answer is: 4"
    found = Solution("Ann has 3 eggs. How many?", expected, (1.0, 0.0))
    assert verdicts.steps({"input": text, "label": labels, "task": "GSM8K"}) == [found]


def test_behind_the_first_mistake_nothing_was_judged():
    row = {"problem": "q", "steps": ["a", "b", "c"], "label": 1}
    found = Solution("q", ("a", "b", "c"), (1.0, 0.0, None))
    assert verdicts.steps(row) == [found]
    assert verdicts.steps(row | {"label": -1})[0].labels == (1.0, 1.0, 1.0)


def test_steps_with_their_labels():
    row = {"question": "q", "steps": ["a", "b"], "labels": [1, None]}
    assert verdicts.steps(row) == [Solution("q", ("a", "b"), (1.0, None))]
    for said in ("a\n b\n", None):
        assert verdicts.steps(row | {"completion": said}) == verdicts.steps(row)
    trl = {"question": "q", "completions": ["a", "b"], "labels": [True, None]}
    assert verdicts.steps(trl) == verdicts.steps(row)


def test_a_record_of_prm800k_has_several_completions_of_a_step():
    one = lambda text, rating: {"text": text, "rating": rating}  # noqa: E731
    steps = [
        {"completions": [one("a", 1)], "chosen_completion": 0},
        {"completions": [one("b", -1), one("c", None)], "chosen_completion": None},
        {"completions": [one("e", 0)], "chosen_completion": 0},
    ]
    for step in steps:
        step["human_completion"] = None
    steps[1]["human_completion"] = {"text": "d"}
    found = verdicts.steps({"question": {"problem": "q"}, "label": {"steps": steps}})
    assert found == [
        Step("q", (), "a", 1.0),
        Step("q", ("a",), "b", 0.0),
        Step("q", ("a",), "c", None),
        Step("q", ("a", "d"), "e", 1.0),
    ]


def test_steps_that_were_judged_one_by_one_become_solutions():
    """A step that two solutions begin with counts in the first alone."""
    row = {"instruction": "q", "responses": [], "next_response": "a", "rating": 1.0}
    more = row | {"responses": ["a"], "next_response": "b", "rating": -1.0}
    other = row | {"responses": ["a"], "next_response": "c", "rating": float("nan")}
    last = row | {"responses": ["a", "c"], "next_response": "d", "rating": 0.0}
    found = [
        (f"row {i}", verdicts.steps(x)[0]) for i, x in enumerate((row, more, other))
    ]
    found.append(("row 3", verdicts.steps(last)[0]))
    assert verdicts.joined(found) == (
        [
            ("row 1", Solution("q", ("a", "b"), (1.0, 0.0))),
            ("row 3", Solution("q", ("a", "c", "d"), (None, None, 1.0))),
        ],
        [],
    )


def test_a_step_that_was_judged_in_two_ways_has_no_label():
    given = [("row 0", Step("q", (), "a", 1.0)), ("row 1", Step("q", (), "a", 0.0))]
    given += [("row 2", Step("q", ("a",), "b", 1.0))]
    given += [("row 3", Step("q", (), "a", 1.0)), ("row 4", Step("q", (), "a", None))]
    solutions, left_out = verdicts.joined(given)
    assert solutions == [("row 2", Solution("q", ("a", "b"), (None, 1.0)))]
    same = "{}: contradicts row 0, of the same step"
    assert left_out == [same.format("row 1"), same.format("row 3")]


TAGGED = {
    "input": "q Step 1: a ки\nStep 2: b ки",
    "label": "q Step 1: a +\nStep 2: b +",
}


@pytest.mark.parametrize(
    ("read", "row", "message"),
    [
        (verdicts.preference, {"chosen": "a", "rejected": 3}, "its rejected is 3, no"),
        (
            verdicts.whole,
            {"question": "q", "completion": "a", "is_correct": "yes"},
            "a label is 'yes'; it is true, false, or in",
        ),
        (
            verdicts.whole,
            {"question": "q", "completion": "a", "is_correct": 1.5},
            "a label is 1.5",
        ),
        (
            verdicts.steps,
            {"question": "q", "steps": ["a", "b"], "labels": [1]},
            "it has 2 steps and 1 labels",
        ),
        (
            verdicts.steps,
            {"question": "q", "steps": ["a"], "labels": 1},
            "it has 1 steps and no list of labels",
        ),
        (
            verdicts.steps,
            {"question": "q", "steps": ["a"], "labels": [1], "completion": "ab"},
            "its steps are not the text of its completion",
        ),
        (
            verdicts.steps,
            {"question": "q", "steps": ["a", 2], "labels": [1, 1]},
            "its steps are not all texts",
        ),
        (
            verdicts.steps,
            {"question": "q", "steps": "ab", "labels": [1, 0]},
            "its steps are 'ab', no list",
        ),
        (
            verdicts.steps,
            {"question": "q", "steps": ["a"], "labels": [1], "completion": 3},
            "its completion is 3, no text",
        ),
        (
            verdicts.steps,
            {"problem": "q", "steps": ["a"], "label": 1},
            "its label is 1; it has 1 steps, from 0 on",
        ),
        (
            verdicts.steps,
            {"instruction": "q", "responses": [], "next_response": "a", "rating": 2.0},
            "a step is rated 2.0; ratings are 1, 0, -1 or null",
        ),
        (
            verdicts.steps,
            TAGGED | {"label": "q Step 1: a +\nStep 2: c +"},
            "step 2 of its input is not in its label",
        ),
        (
            verdicts.steps,
            TAGGED | {"label": "q Step 1: a +\nStep 2: b ки"},
            "step 2 is labelled 'к', not",
        ),
        (
            verdicts.steps,
            TAGGED | {"label": TAGGED["label"] + " more"},
            "its label has more text than its input",
        ),
        (
            verdicts.steps,
            TAGGED | {"input": TAGGED["input"] + " more"},
            "its input does not end in the tag",
        ),
        (
            verdicts.steps,
            {"input": "q a ки", "label": "q a +"},
            "its input has no 'Step 1:'",
        ),
    ],
)
def test_a_row_that_is_not_what_it_should_be_says_why(read, row, message):
    with pytest.raises(ValueError, match=message):
        read(row)
