"""The answer of a text, and when two are the same."""

from fractions import Fraction

import pytest

from grpo_jax.text import answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} and then \boxed{ 2 }", "2"),
        (r"our answer is $\boxed 2$.", "2"),
        (r"\fbox{7}", "7"),
        (r"\boxed{never closed", None),
        ("12 + 3 = 15\n#### 15", "15"),
        ("#### 1,000 \nand more", "1,000"),
        ("####", None),
        (r"\boxed{3} but #### 4", "4"),
        (r"#### 4, no: \boxed{3}", "3"),
        (r"#### 4 \boxed{", "4 \\boxed{"),
        ("15", None),
        ("", None),
    ],
)
def test_the_last_answer_counts(text, answer):
    assert answers.final(text) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"-\frac{-3}{4}", Fraction(3, 4)),
        ("1,000", 1000),
        (r"1\,000", 1000),
        ("1,00", "1,00"),
        ("3.", 3),
        ("-07", -7),
        (r"\$2.50", Fraction(5, 2)),
        (r"50\%", 50),
        ("x + 1", "x+1"),
        ("1/0", "1/0"),
        ("--3", "--3"),
        ("1_000", "1_000"),
        ("١٢", "١٢"),  # digits of another script: Python would take them
        ("1e5", "1e5"),
        ("nan", "nan"),
        ("", ""),
    ],
)
def test_a_number_is_a_fraction_and_all_else_is_text(text, value):
    assert answers.canonical(text) == value


def test_no_answer_is_the_same_as_none():
    assert answers.same("1/2", "0.50") and not answers.same("1/2", "0.49")
    assert not answers.same(None, None) and not answers.same(None, "None")


def test_a_long_answer_takes_no_longer():
    nines = "9" * 10**6
    assert answers.canonical(nines) == nines
