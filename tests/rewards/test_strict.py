"""A reward for right answers in any dress, and for nothing else."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax.rewards import equivalent, strict


def right(said, gold, question=""):
    return strict.is_right(question, said, gold)


RIGHT = [
    ("18", "$18"),
    ("1234", r"1{,}234"),
    ("10", "10."),
    ("1/2", "0.50"),
    ("5", "x = 5"),
    ("y = 5", "5"),
    (r"30^\circ", "30 degrees"),
    (r"\text{(C)}", "C"),
    (r"\text{Monday}", "monday"),
    ("[1,2)", r"\left[1, \frac{4}{2}\right)"),
    ("1,2", "2 and 1"),
    (r"-\infty", r"- \infty"),
    (
        r"\begin{pmatrix} 1/2 \\ 3 \end{pmatrix}",
        r"\begin{bmatrix}\frac12\\3\end{bmatrix}",
    ),
    (r"(-\infty, 2) \cup (3, 4]", r"(3,4]\cup(-\infty,2)"),
    ("4210_5", "4210_{5}"),
    ("x=1, y=2", "y=2, x=1"),
]
WRONG = [
    ("18", "1800"),
    ("18", "0.18"),
    ("8", "3+5"),
    ("0.5", r"50\%"),
    ("5", "5 or 6"),
    ("5", "5, 5"),
    ("5, 5, 7", "5, 7, 7"),
    ("[1,2)", "(1,2]"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "1,2"),
    ("x=5", "y=5"),
    (r"9\text{ a.m.}", "9 p.m."),
    ("5 cm", "5 inches"),
    ("ACF", "FCA"),  # points, or an order: no product
    ("4210_5", "4210_6"),
    ("3:1", "1:3"),
    (r"\sqrt{85}", "9.219544457292887"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{vmatrix} 1 \\ 3 \end{vmatrix}"),
    ("12", "١٢"),
    ("", "5"),
    ("5", " "),
    ("x=1, y=2", "x=2, y=1"),
]


@pytest.fixture
def no_worker(monkeypatch):
    def refuse(*given):
        raise AssertionError(f"asked for algebra: {given}")

    monkeypatch.setattr(equivalent, "equal", refuse)


@pytest.mark.parametrize(("gold", "said"), RIGHT)
def test_a_right_answer_is_right_in_any_dress_and_needs_no_algebra(
    gold, said, no_worker
):
    assert right(said, gold)


@pytest.mark.parametrize(("gold", "said"), WRONG)
def test_another_answer_is_wrong_and_needs_no_algebra(gold, said, no_worker):
    assert not right(said, gold)


def test_no_answer_is_wrong():
    assert not right(None, "5") and not right(None, "None")


def test_percents_are_numbers_where_the_question_asks_for_them():
    asked = "What percent of 80 is 40?", "20% are red. Find the percentage that is not."
    for question, gold in (*((one, "50") for one in asked), ("", r"50\%")):
        assert right("50%", gold, question) and right("50", gold, question)
        assert not right("0.5", gold, question)
    assert not right("50%", "50") and not right("50%", "0.5")
    given = (
        "It costs $80, and 37.5% less today.",
        r"40\% of 50 is 20.",
        "It grew by 9%.",
    )
    for one in given:
        assert not right("50%", "50", f"{one} What does it cost, in dollars?")
    assert not right("50%", "50", r"What is $25\%$ of 200?")
    assert right("50 per cent", "50", "By how many percent?")


def test_order_counts_where_the_question_asks_for_it():
    assert right("2,1", "1,2", "Find both roots.")
    for asked in ("in increasing order", "ascending", "from least to greatest"):
        assert not right("2,1", "1,2", f"Find both roots, {asked}.")
    for asked in ("in any order", "in either order"):
        assert right("2,1", "1,2", f"Find both roots, {asked}.")
    for asked in ("Find all ordered pairs", "In order to pay, find both"):
        assert right("(3,4),(1,2)", "(1,2),(3,4)", f"{asked}.")


@pytest.mark.parametrize(
    ("gold", "said", "is_right"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        (r"x^2+3x+2", "(x+1)(x+2)", True),
        (r"\left(\sqrt{8}, \frac{\pi}{2}\right)", r"(2\sqrt2, \frac12\pi)", True),
        (r"1 \pm \sqrt{8}", r"1-2\sqrt{2}, 1+2\sqrt{2}", True),
        (r"x - 3z = 0", "3z - x = 0", True),
        (r"\pi a^2", r"a^2 \pi", True),
        ("2^{10}", "1024", True),
        (r"2\sqrt{2}", r"\sqrt{7}", False),
        (r"x - 3z = 0", "0 = 0", False),
        (r"x^2", "x^3", False),
    ],
)
def test_formulas_are_compared_by_algebra(gold, said, is_right):
    assert right(said, gold) == is_right


def test_the_question_given_back_is_no_answer():
    question = r"Rationalize the denominator of $\dfrac{1}{\sqrt{2}}$."
    gold = r"\frac{\sqrt{2}}{2}"
    assert not right(r"\frac{1}{\sqrt{2}}", gold, question)
    assert right(r"\frac{1}{\sqrt{2}}", gold)
    assert right(r"\frac12 \sqrt 2", gold, question)


@pytest.mark.parametrize(
    ("question", "gold", "wrong", "right_"),
    [
        ("Factor $r^2+2r+1$.", "(r+1)^2", ["0+r^2+2r+1", "r^2+2r+1"], ["(1+r)^2"]),
        (
            r"Expand \((x+1)(x+2)\).",
            "x^2+3x+2",
            ["(x+2)(x+1)", "(x+1)(x+2)+0"],
            ["2+3x+x^2", "x^{2} + 3 \\cdot x + 2"],
        ),
        ("Let $f(x)+f(1/x)=x$.", r"\frac{1}{x}", [], ["1/x"]),
        ("Simplify $(x+1)(x+2)/(x+2)$.", "1+x", ["(x+1)(x+2)/(x+2)"], ["x+1"]),
        ("Simplify (x+1)^2-x^2.", "2x+1", ["(x+1)^2-x^2", "(1+x)^2-x^2"], ["1+2x"]),
        ("What is $x^2+2x+1$, and what is $(x+1)^2$?", "(x+1)^2", ["x^2+2x+1"], []),
    ],
)
def test_nor_is_it_in_other_words(question, gold, wrong, right_):
    for said in wrong:
        assert right(said, gold) and not right(said, gold, question)
    for said in right_:
        assert right(said, gold, question)


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("x+1", "5=x+1"),
        ("x+1", "y^2=x+1"),
        ("x+1", "X+1"),
        (r"2\pi", r"6=2\pi"),
        (r"-\infty", r"\tan{\frac{\pi}{2}}"),
        (r"\frac{\sqrt{6}-\sqrt{2}}{4}", r"\cos{\frac{5\pi}{12}}"),
        ("x<3", "x=3"),
    ],
)
def test_what_says_more_than_the_answer_does_not_come_to_algebra(gold, said, no_worker):
    assert not right(said, gold)


def test_other_units_are_other_answers():
    for gold, said in [
        (r"18\text{ cents}", r"\$18"),
        (r"18\text{ cents}", "$18"),
        (r"\$18", "18 cents"),
        (r"\$18", "€18"),
        ("18 cm^2", "18 cm"),
        ("18 cm^2", "18 cm^3"),
        ("18 square feet", "18 feet"),
        (r"5\text{ feet per second}", "5 seconds per foot"),
    ]:
        assert not right(said, gold) and right("18" if "18" in gold else "5", gold)
    assert right("£18", "18", "What does it cost, if tea costs £2?")
    assert right("18 mph", r"18\text{ miles per hour}")
    assert right("18 sq. ft", r"18\text{ square feet}")


def test_words_behind_a_number_are_of_the_question():
    question = "How many apples are in 3 boxes of fruit? 有多少个苹果?"
    for said in ("18 apples", "18 apple", "18 box", "18", "18 cm", "18 个苹果"):
        assert right(said, "18", question)
    for said in ("18 pears", "18 alternatively nineteen", "18 negated", "18 香蕉"):
        assert not right(said, "18", question)
    assert right("18 pears", r"18\text{ pears}", question)


@pytest.mark.parametrize(
    "said",
    [
        "9^{9^{9}}",
        "(x+1)^{9999}",
        "(x+y+z+a+b+c)^{99}",
        "x^{99999}",
        "__import__('os').system('true')",
        r"\int_0^1 x dx",
        "x" * 300,
        "x!",
        "9" * 30,
    ],
)
def test_what_is_absurd_does_not_come_to_algebra(said, no_worker):
    assert not right(said, "x + 1")


def test_a_unit_in_text_is_no_part_of_a_formula(no_worker):
    assert right(r"99\pi", r"99\pi \text{ square inches}")


ANSWERS = [
    "5",
    "5.0",
    "x=5",
    "6",
    "6 cm",
    "1/2",
    "0.5",
    None,
    "2,1",
    "1, 2",
    "no",
    "No",
]


@given(st.permutations(ANSWERS), st.sampled_from([x for x in ANSWERS if x]))
def test_equal_answers_vote_together_and_right_ones_are_number_0(said, gold):
    votes = strict.votes("", gold, said)
    for (a, i), (b, j) in itertools.combinations(zip(said, votes, strict=True), 2):
        if a is not None and b is not None:
            assert (i == j) == right(a, b)
    for a, i in zip(said, votes, strict=True):
        assert (i == 0) == right(a, gold) and (i is None) == (a is None)


def test_formulas_vote_together_as_well():
    said = [r"\sqrt{8}", "3", r"2\sqrt{2}", r"\sqrt{3}", r"\frac{3}{\sqrt{3}}"]
    assert strict.votes("", "x", said) == [1, 2, 1, 3, 3]
