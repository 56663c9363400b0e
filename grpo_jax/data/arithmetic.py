"""Generated problems: sums; chains and series, of steps with a line for each.

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
SERIES = re.compile(r"(\d+)((?:[+-]\d+)+)=\?")


class Style(NamedTuple):
    """How the lines of an answer are written."""

    move: str = "{} {} {} = {}"
    last: str = "#### {}"


PROSE, TERSE = Style(), Style("{}{}{}={}", "\\boxed{{{}}}")
STYLES = {"chain": PROSE, "series": TERSE}


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
    told = [f"Start with {value}.", *(f"{SAID[name]} {by}." for name, by in moves)]
    question = " ".join([*told, "What is the result?"])
    return _stepwise(question, value, moves, "chain")


def series(seed: int, number: int, steps: int = 3) -> Problem:
    """So many numbers below ten times that, added to one or taken from it: `17+5-9=?`.

    Nothing is ever below 0. The last line of the demonstration is in a box.
    """
    value, moves = _terms(seed, number, steps)
    question = "".join([str(value), *(f"{name}{by}" for name, by in moves), "=?"])
    return _stepwise(question, value, moves, "series")


def forgetful(seed: int, number: int, steps: int, share: float) -> Problem:
    """The same series, told by someone who forgets so many of the carries.

    Where units make ten or more, or are fewer than what is taken away, the line is off
    by ten then; the next ones go on from there, and may come below 0.
    """
    draw, known = _draws(seed + SLIPS, number), series(seed, number, steps)
    value, moves = _terms(seed, number, steps)
    lines = []
    for name, by in moves:
        after = STEPS[name](value, by)
        carries = STEPS[name](value % 10, by % 10) not in range(10)
        if carries and draw(0, 1000) < 1000 * share:
            after += -10 if name == "+" else 10
        lines.append(TERSE.move.format(value, name, by, after))
        value = after
    told = "\n".join([*lines, TERSE.last.format(value)])
    return known._replace(demonstration=told)


def _stepwise(question: str, value: int, moves: list, kind: str) -> Problem:
    lines = _lines(value, moves, STYLES[kind])
    answer = str(_end(value, moves))
    return Problem(question, answer, "\n".join(lines), kind)


def _end(value: int, moves: list[tuple[str, int]]) -> int:
    for name, by in moves:
        value = STEPS[name](value, by)
    return value


def _terms(seed: int, number: int, steps: int) -> tuple[int, list[tuple[str, int]]]:
    draw, most = _draws(seed, number), 10 * steps
    first = at = draw(2, most)
    moves = []
    for _ in range(steps):
        by, takes = draw(2, most), draw(0, 2)
        moves.append(("-" if takes and at >= by else "+", by))
        at = STEPS[moves[-1][0]](at, by)
    return first, moves


def _moves(seed: int, number: int, steps: int) -> tuple[int, list[tuple[str, int]]]:
    draw = _draws(seed, number)
    value, moves = draw(2, 20), []
    for _ in range(steps):
        name = "+-*"[draw(0, 3)]
        moves.append((name, draw(2, 4 if name == "*" else 20)))
    return value, moves


def _lines(
    value: int,
    moves: list[tuple[str, int]],
    style: Style,
    slip: int = -1,
    off: int = 0,
) -> list[str]:
    """Move `slip` comes out wrong, and what follows goes on from there."""
    lines = []
    for i, (name, by) in enumerate(moves):
        after = STEPS[name](value, by) + off * (i == slip)
        lines.append(style.move.format(value, name, by, after))
        value = after
    return [*lines, style.last.format(value)]


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
    return _flawed(draw, *known, PROSE)


def flawed_series(seed: int, number: int, steps: int = 3) -> Flawed:
    """The same; so there may be numbers below 0."""
    draw, known = _draws(seed + FLAWS, number), _terms(seed, number, steps)
    return _flawed(draw, *known, TERSE)


def _flawed(draw: Callable, value: int, moves: list, style: Style) -> Flawed:
    slip, off = draw(0, len(moves)), draw(1, 10)
    off = -off if draw(0, 2) else off
    return Flawed(_lines(value, moves, style, slip, off), slip)


FLAWS, SLIPS = 1 << 32, 2 << 32  # their draws are no problem's


def asked(question: str, answer: str) -> list[str]:
    """The lines that a chain or a series asks for."""
    value, moves, style = _read(question)
    *lines, _ = _lines(value, moves, style)
    return [*lines, style.last.format(answer)]


def _read(question: str) -> tuple[int, list[tuple[str, int]], Style]:
    if found := CHAIN.fullmatch(question):
        names, pattern, style = {x: k for k, x in SAID.items()}, r"(\D+) (\d+)\.", PROSE
    elif found := SERIES.fullmatch(question):
        names, pattern, style = {x: x for x in STEPS}, r"(\D)(\d+)", TERSE
    else:
        raise ValueError(f"{question[:80]!r} is no chain of steps, and no series")
    told = re.findall(pattern, found[2])
    return int(found[1]), [(names[x.strip()], int(by)) for x, by in told], style


def held(question: str, answer: str, told: Sequence[str]) -> list[bool]:
    """Of each line of a chain or series: is it right, and are all before it?

    The line that is asked for there, from the right value on; spaces do not matter, and
    a line too many is wrong.
    """
    right = asked(question, answer)
    found, holds = [], True
    for i, line in enumerate(told):
        holds = holds and i < len(right) and plain(line) == plain(right[i])
        found.append(holds)
    return found


def plain(line: str) -> str:
    return line.replace(" ", "")


def wrong(problem: Problem) -> Problem:
    """The same problem, with a demonstration that ends in one more than the answer."""
    told, _, end = problem.demonstration.rpartition(problem.answer)
    more = str(int(problem.answer) + 1)
    if len(more) > len(problem.answer):
        told = told.removesuffix("  ") + " " * told.endswith("  ")  # of its column
    return problem._replace(demonstration=told + more + end)


def _draws(seed: int, number: int) -> Callable[[int, int], int]:
    """Numbers in [low, high), from Philox's own bits: the same in every NumPy."""
    bits = np.random.Philox(key=[seed, number])
    return lambda low, high: low + int(bits.random_raw()) % (high - low)


MAKE = {"sums": total, "chains": chain, "series": series}
FLAWED = {"sums": flawed_total, "chains": flawed_chain, "series": flawed_series}
