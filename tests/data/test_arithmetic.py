"""Generated problems say what is true, but where a wrong one was asked for."""

import re

from hypothesis import given
from hypothesis import strategies as st

from grpo_jax.data import arithmetic
from grpo_jax.text import answers

numbers = st.integers(0, 2**32 - 1), st.integers(0, 10**6)


def result(step):
    left, equals, right = step.partition(" = ")
    a, name, b = left.split(" ")
    assert equals and arithmetic.STEPS[name](int(a), int(b)) == int(right)
    return a, right


@given(*numbers, st.integers(1, 5))
def test_a_sum_is_right(seed, number, digits):
    made = arithmetic.total(seed, number, digits)
    a, b = made.question.removesuffix("=").split("+")
    assert int(a) + int(b) == int(made.answer) and len(a) <= digits >= len(b)
    assert made == arithmetic.total(seed, number, digits)


@given(*numbers, st.integers(1, 6))
def test_every_line_of_a_chain_follows_from_the_one_before(seed, number, steps):
    made = arithmetic.chain(seed, number, steps)
    *lines, last = made.demonstration.split("\n")
    value = made.question.removeprefix("Start with ").split(".")[0]
    for line in lines:
        first, after = result(line)
        assert first == value
        value = after
    assert len(lines) == steps and last == f"#### {value}" and made.answer == value


@given(*numbers, st.integers(1, 6))
def test_a_series_is_what_its_question_says_and_is_never_below_zero(
    seed, number, steps
):
    made = arithmetic.series(seed, number, steps)
    assert re.fullmatch(r"\d+([+-]\d+)+=\?", made.question)
    terms = [int(x) for x in re.findall(r"[+-]?\d+", made.question)]
    assert len(terms) == steps + 1 and all(2 <= abs(x) < 10 * steps for x in terms)
    *lines, last = made.demonstration.split("\n")
    at = terms[0]
    for term, line in zip(terms[1:], lines, strict=True):
        assert line == f"{at}{term:+}={at + term}" and at + term >= 0
        at += term
    assert last == f"\\boxed{{{at}}}" and made.answer == str(at)
    assert answers.final(made.demonstration) == made.answer


def test_a_series_is_the_same_on_every_machine():
    assert arithmetic.series(0, 0, 3).question == "17-4+14-23=?"


def test_a_carry_is_forgotten_by_hand():
    # 27+36: units make 13, so 63 without its carry is 53; 63-6: 3 is less than 6
    right = arithmetic.series(0, 0, 4)
    assert right.question == "27+36-6-37+34=?"
    told = arithmetic.forgetful(0, 0, 4, 1.0)
    assert told.demonstration == "\n".join(
        ["27+36=53", "53-6=57", "57-37=20", "20+34=54", "\\boxed{54}"]
    )
    assert told[:2] == right[:2] and told.kind == right.kind


def carries(line):
    a, name, b, _ = re.fullmatch(r"(-?\d+)([+-])(\d+)=(-?\d+)", line).groups()
    units = int(a) % 10, int(b) % 10
    return sum(units) > 9 if name == "+" else units[0] < units[1]


@given(*numbers, st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0]))
def test_only_carries_are_forgotten_and_of_these_a_share(seed, number, steps, share):
    made = arithmetic.forgetful(seed, number, steps, share)
    *lines, last = made.demonstration.split("\n")
    for line in lines:
        told, said = line.split("=")
        a, name, b = re.fullmatch(r"(-?\d+)([+-])(\d+)", told).groups()
        off = int(said) - arithmetic.STEPS[name](int(a), int(b))
        forgotten = {"+": -10, "-": 10}[name]
        assert off in ({0, forgotten} if carries(line) else {0})
        if share in (0.0, 1.0):
            assert (off != 0) == (carries(line) and share == 1.0)
    assert last == f"\\boxed{{{lines[-1].split('=')[1]}}}"


def test_so_many_carries_are_forgotten():
    made = [arithmetic.forgetful(0, i, 3, 0.3) for i in range(1000)]
    lines = [line for one in made for line in one.demonstration.split("\n")[:-1]]
    of = [line for line in lines if carries(line)]
    wrong = [x for x in of if eval_of(x) != int(x.split("=")[1])]
    assert 0.27 < len(wrong) / len(of) < 0.33


def eval_of(line):
    a, name, b, _ = re.fullmatch(r"(-?\d+)([+-])(\d+)=(-?\d+)", line).groups()
    return arithmetic.STEPS[name](int(a), int(b))


@given(*numbers)
def test_a_wrong_demonstration_is_wrong_and_otherwise_the_same(seed, number):
    right = arithmetic.chain(seed, number)
    wrong = arithmetic.wrong(right)
    assert wrong[:2] == right[:2] and wrong.kind == right.kind
    assert answers.final(wrong.demonstration) == str(int(right.answer) + 1)
    assert wrong.demonstration.split("\n")[:-1] == right.demonstration.split("\n")[:-1]
    right = arithmetic.series(seed, number)
    wrong = arithmetic.wrong(right)
    assert answers.final(wrong.demonstration) == str(int(right.answer) + 1)
    assert wrong.demonstration.split("\n")[:-1] == right.demonstration.split("\n")[:-1]
    right = arithmetic.total(seed, number)
    wrong = arithmetic.wrong(right)
    assert answers.last(wrong.demonstration) == str(int(right.answer) + 1)
    assert len(wrong.demonstration) == len(right.demonstration)  # still in its column


def test_seeds_and_numbers_give_other_problems():
    made = {arithmetic.total(s, n, 4).question for s in range(10) for n in range(100)}
    assert len(made) > 990


def test_a_line_of_a_series_holds_if_it_and_all_before_it_are_right():
    question, right = "9+8-2=?", ["9+8=17", "17-2=15", "\\boxed{15}"]
    assert arithmetic.held(question, "15", right) == [True] * 3
    assert arithmetic.held(question, "15", ["9 + 8 = 17", *right[1:]]) == [True] * 3
    assert arithmetic.held(question, "15", ["9+8=16", *right[1:]]) == [False] * 3
    assert arithmetic.held(question, "15", [*right[:2], "#### 15"])[2] is False
    assert arithmetic.held(question, "15", [*right, ""]) == [True] * 3 + [False]


def test_a_line_of_a_chain_holds_if_it_and_all_before_it_are_right():
    question = "Start with 5. Add 3. Multiply by 2. What is the result?"
    right = ["5 + 3 = 8", "8 * 2 = 16", "#### 16"]
    assert arithmetic.held(question, "16", right) == [True] * 3
    assert arithmetic.held(question, "16", ["5+3 = 8 ", *right[1:]]) == [True] * 3
    assert arithmetic.held(question, "16", right[:1]) == [True]
    assert arithmetic.held(question, "16", [*right, "#### 16"]) == [True] * 3 + [False]
    slipped = ["5 + 3 = 9", "8 * 2 = 16", "#### 16"]  # right again, and not held
    assert arithmetic.held(question, "16", slipped) == [False] * 3
    assert arithmetic.held(question, "16", [right[0], right[2]]) == [True, False]
