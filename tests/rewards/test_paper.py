"""The paper's grading, with its holes; each of section 8.1's passes, as there."""

import pytest

from grpo_jax.rewards import equivalent, paper


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the final answer is $5$. I hope it is", ["5"]),
        (r"\boxed{5} and \boxed{\frac12}", ["5", r"\frac{1}{2}"]),
        (r"\boxed{5\%}", ["5%"]),
        (r"\boxed{50}% of it", ["50}"]),
        ("boxed 5", []),
        ("The answer is: 18.\nSo", ["18"]),
        ("```output\n7.0\n```", ["7"]),
        ("we get 10-3", ["-3"]),
        ("so 3/4", ["4"]),
        ("1,234", ["1234"]),
        ("nothing", []),
    ],
)
def test_candidates_by_the_first_rule_that_applies(text, found):
    assert paper.candidates(text) == found


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (r"5\text{ cm}", "5"),
        (r"\text{Monday}", "Monday"),
        (r"30^\circ", "30"),
        ("7.00", "7"),
        (".5", "0.5"),
        (r"\sqrt3", r"\sqrt{3}"),
        ("1/2", r"\frac{1}{2}"),
        (r"\sqrt{3}/2", r"\frac{\sqrt{3}}{2}"),
        ("information", r"\inftyormation"),
        (r"2\cdot3", "23"),
        ("3+2j", "3+2i"),
        (r"\tfrac{1}{2}.", r"\frac{1}{2}"),
        (r"x\in[1,2]", "[1,2]"),
    ],
)
def test_a_candidate_is_cleaned_up(text, left):
    assert paper.stripped(text) == left


def last(completion, gold):
    return paper.grade("", completion, gold, "last")


def listed(completion, gold, question=""):
    return paper.grade(question, completion, rf"\boxed{{{gold}}}", "list").is_right


@pytest.mark.parametrize(
    ("said", "gold", "is_right"),
    [
        ("18", "18", True),
        ("1800", "18", True),
        ("0.18", "18", True),
        ("180", "18", False),
        ("9" * 400, "18", False),  # infinity
        ("0", "0.1", True),
        ("1,234", "1,234", True),
        ("18.0009", "18", True),
        (r"3+5", "8", True),
        ("", "8", False),
    ],
)
def test_numbers_within_a_thousandth_and_a_factor_of_a_hundred(said, gold, is_right):
    found = last(rf"\boxed{{{said}}}", gold)
    assert found == (is_right, True)


def test_lists_are_matched_both_ways_and_repeats_dropped():
    assert listed(r"\boxed{1} \boxed{2}", r"2}\boxed{1")
    assert listed(r"\boxed{5} \boxed{7} \boxed{5}", "7")
    assert not listed(r"\boxed{5} \boxed{7}", "5")
    assert listed(r"\boxed{2,1}", "1,2", "separated by commas")
    assert not listed(r"\boxed{2,1}", "1,2")
    assert listed(r"\boxed{1 \text{ and } 2}", "2}\\boxed{1")


def test_brackets_are_ignored_and_matrices_compared_by_element():
    assert listed(r"\boxed{(1,2]}", "[1,2)")
    matrix = r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"
    assert listed(rf"\boxed{{{matrix.replace('4', '4.0001')}}}", matrix)
    assert not listed(rf"\boxed{{{matrix.replace('4', '5')}}}", matrix)


def test_equations_are_equal_up_to_their_sign_and_a_short_name():
    assert listed(r"\boxed{x=5}", "5") and listed(r"\boxed{5}", "x=5")
    assert listed(r"\boxed{y-x=3}", "x-y+3=0")


def test_what_only_python_could_read_is_told(monkeypatch):
    monkeypatch.setattr(equivalent, "verdict", lambda *given: "unread")
    assert last(r"\boxed{2**3}", "8") == (False, False)
    assert last(r"\boxed{8}", "8") == (True, True)


def test_what_is_late_is_wrong(monkeypatch):
    monkeypatch.setattr(equivalent, "verdict", lambda *given: "late")
    assert last(r"\boxed{9^{9^{9}}}", "8") == (False, True)
