"""Generated problems: sums, and chains of steps with a line for each.

Problem i of a seed is a function of (seed, i): as many as are wanted, and no file.
"""

import operator
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

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
    value, moves = _moves(seed, number, steps)
    asked = [f"Start with {value}.", *(f"{SAID[name]} {by}." for name, by in moves)]
    question = " ".join([*asked, "What is the result?"])
    *lines, last = _lines(value, moves)
    answer = last.removeprefix("#### ")
    return Problem(question, answer, "\n".join([*lines, last]), "chain")


def _moves(seed: int, number: int, steps: int) -> tuple[int, list[tuple[str, int]]]:
    draw = _draws(seed, number)
    value, moves = draw(2, 20), []
    for _ in range(steps):
        name = "+-*"[draw(0, 3)]
        moves.append((name, draw(2, 4 if name == "*" else 20)))
    return value, moves


def _lines(
    value: int, moves: list[tuple[str, int]], slip: int = -1, off: int = 0
) -> list[str]:
    """Of a chain; move `slip` comes out wrong, and what follows goes on from there."""
    lines = []
    for i, (name, by) in enumerate(moves):
        after = STEPS[name](value, by) + off * (i == slip)
        lines.append(f"{value} {name} {by} = {after}")
        value = after
    return [*lines, f"#### {value}"]


class Flawed(NamedTuple):
    """How a problem may be answered wrongly, line by line."""

    lines: list[str]
    first: int  # the first line that is wrong: all from there on are


def flawed_total(seed: int, number: int, digits: int = 2) -> Flawed:
    """The columns of a sum are right, and the whole is off by up to nine."""
    draw, told = _draws(seed + FLAWS, number), total(seed, number, digits)
    right = int(told.answer)
    off = draw(1, 10)
    said = right - off if draw(0, 2) and right >= off else right + off
    if digits == 1:
        return Flawed([str(said)], 0)
    columns = told.demonstration[: 3 * digits]
    return Flawed([f"{columns}{said:{digits + 1}}"], 0)


def flawed_chain(seed: int, number: int, steps: int = 3) -> Flawed:
    """One line is off by up to nine, and the others go on from there."""
    draw, known = _draws(seed + FLAWS, number), _moves(seed, number, steps)
    slip, off = draw(0, steps), draw(1, 10)
    return Flawed(_lines(*known, slip, -off if draw(0, 2) else off), slip)


FLAWS = 1 << 32  # their draws are no problem's


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


def held(question: str, answer: str, told: Sequence[str]) -> list[bool]:
    """Of each line of a chain: is it right, and are all before it?

    The line that is asked for there, from the right value on; spaces do not matter, and
    a line too many is wrong.
    """
    asked = [*lines(question), f"#### {answer}"]
    found, holds = [], True
    for i, line in enumerate(told):
        holds = holds and i < len(asked) and plain(line) == plain(asked[i])
        found.append(holds)
    return found


def plain(line: str) -> str:
    return line.replace(" ", "")


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
