"""What an answer says, without its dress."""

from fractions import Fraction

import pytest

from grpo_jax.text import forms, units


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"\frac12", Fraction(1, 2)),
        (r"\frac 54", Fraction(5, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"-\frac{-3}{4}", Fraction(3, 4)),
        (r"11 \frac{2}{3}", Fraction(35, 3)),
        ("-1 1/2", Fraction(-3, 2)),
        (r"2.4\times 10^{3}", 2400),
        (r"1.5 \cdot 10^{-2}", Fraction(3, 200)),
        ("1,000", 1000),
        (r"1\,000", 1000),
        (r"1{,}234", 1234),
        (r"\frac{12}{5,\!525}", None),
        ("3.", 3),
        ("-07", -7),
        ("+5", 5),
        ("−5", -5),  # the sign of minus
        (r"\$2.50", Fraction(5, 2)),
        (r"50\%", 50),
        (r"\frac{1}{-2}", Fraction(-1, 2)),
        (r"2\frac{1}{-2}", None),
        ("{18}", 18),
        (r"\boldsymbol{18}", 18),
        (r"2\,345", 2345),
        (r"2\,3", None),
        ("2$3", None),
        ("2€50", None),
        (r"\(2\)\(3\)", None),
        ("**18**", 18),
        ("１８", 18),  # fullwidth
        (r"\(18\)", 18),
        (r"\text{13}", 13),
        ("x + 1", None),
        ("3+5", None),
        ("10-3", None),
        ("1/0", None),
        ("--3", None),
        ("1_000", None),
        ("١٢", None),  # digits of another script: Python would take them
        ("1²", None),
        ("1e5", None),
        ("nan", None),
        ("1.2.3", None),
        ("5!", None),
        ("9" * 1001, None),
        ("", None),
    ],
)
def test_a_number_is_a_fraction_and_all_else_is_none(text, value):
    found = forms.read(text)
    assert isinstance(found, forms.Leaf) and found.number == value


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("5 cm", {"centimeter"}),
        ("5cm", {"centimeter"}),
        (r"5\text{ cm}^2", {"centimeter²"}),
        (r"5 \mbox{ inches}^2", {"inch²"}),
        ("5 apples", set()),
        ("5 miles per hour", {"mile", "/hour"}),
        ("45 mph", {"mile", "/hour"}),
        ("45 km/h", {"kilometer", "/hour"}),
        ("5 square feet", {"foot²"}),
        (r"5\text{ cu. in.}", {"inch³"}),
        ("5 cm²", {"centimeter²"}),
        (r"\$5", {"dollar"}),
        ("$5", {"dollar"}),
        ("$5$", set()),
        ("€5 a day", {"euro", "/day"}),
        ("5元", {"yuan"}),
        ("5 平方厘米", set()),
        ("5万", None),
        ("5 square", None),
        ("5 hundredths", None),
        ("5 twenty", None),
        ("5 squared", None),
        ("18 dollars a day", {"dollar", "/day"}),
        (r"30^\circ", {"degree"}),
        (r"30^{\circ}", {"degree"}),
        ("30°", {"degree"}),
        (r"9\text{ a.m.}", {"morning"}),
        ("5 m", {"meter"}),
        ("5m", None),  # a product
        ("6x", None),
        ("6 x", None),
        ("5 million", None),
        ("5 or six", None),
        ("5 plus one", None),
        ("5 pi", None),
        ("5 (five)", None),
        ("5^2", None),
        (r"5^{2} \text{ cm}", None),
        (r"5 \text{ or } 6", None),
    ],
)
def test_words_behind_a_number_are_a_unit_unless_they_say_how_many(text, unit):
    found = forms.read(text)
    is_number = isinstance(found, forms.Leaf) and found.number is not None
    assert is_number == (unit is not None)
    assert unit is None or found.unit.known == unit


@pytest.mark.parametrize(
    ("text", "kind", "count"),
    [
        ("(1, 2)", "()", 2),
        (r"\left[ 0, \frac{3}{2} \right)", "[)", 2),
        ("1, 2, 3", "set", 3),
        (r"7, -2, \text{ and } -5", "set", 3),
        ("3 or 4", "set", 2),
        (r"\{1, 2\}", "set", 2),
        (r"1 \pm \sqrt{19}", "set", 2),
        (r"(-\infty, 2) \cup (3, \infty)", "union", 2),
        ("(1,2),(3,4)", "set", 2),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "matrix", 2),
        ("(1,234)", "()", 2),
    ],
)
def test_several_are_taken_apart(text, kind, count):
    found = forms.read(text)
    assert isinstance(found, forms.Many)
    assert (found.kind, len(found.items)) == (kind, count)


def test_a_name_in_front_is_kept_apart():
    found = forms.read("x_1 = 5")
    assert found == forms.Named("x_1", forms.read("5"))
    assert forms.read("n = 58,500") == forms.Named("n", forms.read("58,500"))
    assert isinstance(forms.read("3 + 5 = 8"), forms.Leaf)
    assert forms.read("(5)") == forms.read("5")


def test_deep_brackets_and_long_answers_are_not_looked_into():
    assert isinstance(forms.read("(" * 400 + "1,2" + ")" * 400), forms.Leaf)
    assert forms.read("{" * 10**6).text == "{" * 10**6


def test_words_that_are_no_known_unit_are_kept():
    unit = forms.read("18 more red apples per day").unit
    assert unit == units.Unit({"/day"}, {"more", "red", "apples"})
    assert forms.read(r"18\text{ of the square units}").unit == units.Unit()
    assert forms.read("5 平方厘米").unit.words == {"平方厘米"}
    for one, other in (("apples", "apple"), ("boxes", "box"), ("city", "cities")):
        assert units.alike(one) & units.alike(other)
    assert not units.alike("apples") & units.alike("pears")
