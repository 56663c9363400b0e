"""Generated problems: sums, and chains of steps with a line for each.

Problem i of a seed is a function of (seed, i): as many as are wanted, and no file.
"""

import operator
import re
from collections.abc import Callable

import numpy as np

from grpo_jax.data.problem import Problem

STEPS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
SAID = {"+": "Add", "-": "Subtract", "*": "Multiply by"}
CHAIN = re.compile(
    r"Start with (\d+)\.((?: (?:Add|Subtract|Multiply by) \d+\.)+) What is the result\?"
)


def total(seed: int, number: int, digits: int = 2) -> Problem:
    """A sum of two numbers with up to so many digits: `27+ 5=`.

    It is demonstrated by columns, the units first, and then whole: `12  2  32`. Of one
    digit there is nothing to do by columns.
    """
    draw = _draws(seed, number)
    a, b = draw(0, 10**digits), draw(0, 10**digits)
    columns = (a // 10**i % 10 + b // 10**i % 10 for i in range(digits))
    told = "".join(f"{column:2} " for column in columns) + f"{a + b:{digits + 1}}"
    told = told if digits > 1 else str(a + b)
    return Problem(f"{a:{digits}}+{b:{digits}}=", str(a + b), told, "sum")


def chain(seed: int, number: int, steps: int = 3) -> Problem:
    """From a number on, step after step; the demonstration has a line for each."""
    draw = _draws(seed, number)
    value, lines = draw(2, 20), []
    question = f"Start with {value}."
    for _ in range(steps):
        name = "+-*"[draw(0, 3)]
        by = draw(2, 4 if name == "*" else 20)
        after = STEPS[name](value, by)
        lines.append(f"{value} {name} {by} = {after}")
        question += f" {SAID[name]} {by}."
        value = after
    question += " What is the result?"
    return Problem(question, str(value), "\n".join([*lines, f"#### {value}"]), "chain")


def lines(question: str) -> list[str]:
    """The lines that a chain's question asks for, but for the last, its answer."""
    asked = CHAIN.fullmatch(question)
    if asked is None:
        raise ValueError(f"{question[:80]!r} is no chain of steps")
    value, found = int(asked[1]), []
    names = {said: name for name, said in SAID.items()}
    for said, by in re.findall(r"(\D+) (\d+)\.", asked[2]):
        name = names[said.strip()]
        after = STEPS[name](value, int(by))
        found.append(f"{value} {name} {by} = {after}")
        value = after
    return found


def wrong(problem: Problem) -> Problem:
    """The same problem, with a demonstration that ends in one more than the answer."""
    told = problem.demonstration.removesuffix(problem.answer)
    more = str(int(problem.answer) + 1)
    if len(more) > len(problem.answer):
        told = told.removesuffix("  ") + " " * told.endswith("  ")  # of its column
    return problem._replace(demonstration=told + more)


def _draws(seed: int, number: int) -> Callable[[int, int], int]:
    """Numbers in [low, high), from Philox's own bits: the same in every NumPy."""
    bits = np.random.Philox(key=[seed, number])
    return lambda low, high: low + int(bits.random_raw()) % (high - low)
