"""The tables of how gradings agree: by hand, and as they are committed."""

import os
import pathlib

import pytest

from grpo_jax.bench import answers, mutants
from grpo_jax.data import sets
from grpo_jax.rewards import strict


@pytest.mark.parametrize(
    ("kind", "answer", "changed"),
    [
        ("sign changed", "18", "-18"),
        ("sign changed", "-18", "18"),
        ("sign changed", "0", None),
        ("sign changed", r"2\sqrt{3}", r"-(2\sqrt{3})"),
        ("times 100", r"\frac{1}{2}", "50"),
        ("over 100", "18", "0.18"),
        ("over 100", r"\frac{1}{3}", r"\frac{1}{300}"),
        ("fraction swapped", r"\frac{2}{3}", r"\frac{3}{2}"),
        ("fraction swapped", r"\frac{2}{2}", None),
        ("first bracket changed", "[1,2)", "(1,2)"),
        ("first bracket changed", "18", None),
        ("one more", "-1", "0"),
        ("0.0009 more", "1", r"\frac{10009}{10000}"),
        ("with the next in a list", "5", "5, 6"),
        ("as a sum left undone", "8", "7 + 1"),
    ],
)
def test_a_right_answer_is_made_wrong(kind, answer, changed):
    assert mutants.WRONG[kind](answer) == changed
    assert changed is None or not strict.is_right("", changed, answer)


@pytest.mark.parametrize(
    ("kind", "answer", "changed"),
    [
        ("displayed", r"\frac{1}{2}", r"\dfrac{1}{2}"),
        ("displayed", r"\left(1,2)", r"\left(1,2\right)"),
        ("in centimetres", "5", r"5\text{ cm}"),
        ("with a name", "5", "n = 5"),
        ("in groups of three digits", "12345", "12{,}345"),
        ("in groups of three digits", "999", None),
        ("as a decimal", r"\frac{3}{8}", "0.375"),
        ("as a decimal", r"\frac{1}{3}", None),
        ("under the root", r"2\sqrt{3}", r"\sqrt{12}"),
        ("in another order", "1, 2", "2, 1"),
        ("in another order", "(1,2),(3,4)", None),
    ],
)
def test_a_right_answer_stays_right_in_another_form(kind, answer, changed):
    assert mutants.RIGHT[kind](answer) == changed
    assert changed is None or strict.is_right("", changed, answer)


def test_a_closing_line_is_read_as_a_mark():
    assert answers._marked("A: 3 is\nso\nA: 18\n") == "A: 3 is\nso\n#### 18\n"


@pytest.mark.skipif(sets.FOLDER not in os.environ, reason="no real data here")
def test_the_strict_checker_agrees_with_every_published_verdict():
    folder, count = pathlib.Path(os.environ[sets.FOLDER]), 0
    for _, question, text, answer, is_correct in answers.solved(folder):
        said = answers.answers.final(text)
        assert strict.is_right(question, said, answer) == is_correct, (text, answer)
        count += 1
    assert count == 5276


@pytest.mark.skipif(sets.FOLDER not in os.environ, reason="no real data here")
@pytest.mark.parametrize("name", ["gsm8k", "math"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_solution_of_the_data_accepts_itself(name, split):
    for one in sets.read(name, split).all:
        said = answers.answers.final(one.demonstration)
        assert strict.is_right(one.question, said, one.answer), one.answer


@pytest.mark.slow
@pytest.mark.skipif(sets.FOLDER not in os.environ, reason="no real data here")
def test_the_committed_tables_are_those_of_now():
    folder = pathlib.Path(os.environ[sets.FOLDER])
    assert answers.tables(folder) == answers.TABLES.read_text()
