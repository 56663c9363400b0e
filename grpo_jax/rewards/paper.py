r"""How the paper's own evaluation grades an answer, to compare with its numbers.

Its rules are reproduced with their holes (the table of `bench
answers` has them), so none of this is a reward: `1800` passes for 18. All
but one: where sympy cannot read a formula, the original evaluates it as Python. Here
such a comparison is unequal, and the grade says that it was not reproduced.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from grpo_jax.rewards import equivalent

CLOSE = 1e-3
Graded = Literal["last", "list"]


class Grade(NamedTuple):
    is_right: bool
    is_reproduced: bool = True  # False: wrong here, and maybe not by parse_expr


def grade(question: str, completion: str, gold: str, of: Graded) -> Grade:
    """`gold` is a number where the last candidate counts, a solution where all do."""
    unread: list[str] = []
    if of == "last":
        *_, said = "", *candidates(completion)
        right = _equal(said, gold.replace(",", "").strip(), unread)
    else:
        of_gold = _different(_listed(question, gold))
        said = _different(_listed(question, completion))[-len(of_gold) :]
        right = _equal_lists(said, of_gold, unread)
    return Grade(right, right or not unread)


def candidates(text: str) -> list[str]:
    """Every answer that a text gives, by the first of four rules that applies."""
    if "final answer is $" in text and "$. I hope" in text:
        found = [text.split("final answer is $", 1)[1].split("$. I hope", 1)[0]]
    elif "boxed" in text:
        found = [
            x for part in text.split("boxed{")[1:] if (x := _box(part)) is not None
        ]
    elif "he answer is" in text:
        found = [text.rsplit("he answer is", 1)[1]]
    elif output := _output(text):
        found = [output]
    else:
        found = re.findall(r"-?\d*\.?\d+", text.replace(",", ""))[-1:]
    lines = (x.strip().split("\n")[0] for x in found)
    return [stripped(x.lstrip(":").rstrip(".").rstrip("/")) for x in lines]


def _box(rest: str) -> str | None:
    """What a box holds that was just opened; its brace too, if % follows."""
    depth = 0
    for i, c in enumerate(rest):
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return rest[: i + (rest[i + 1 : i + 2] == "%")]
    return None


def _output(text: str) -> str:
    """Of the last program that was run."""
    _, mark, rest = text.rpartition("```output")
    return rest.split("```")[0].strip() if mark else ""


def _listed(question: str, text: str) -> list[str]:
    found: list[str] = []
    for x in candidates(text):
        if "separated by commas" in question and not set("()[]") & set(x):
            found += x.split(",")
        else:
            found += re.split(r"\\text\{\s*and\s*\}", x)
    return [x.strip() for x in found]


def _different(found: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(found))


def _equal_lists(said: Sequence[str], gold: Sequence[str], unread: list[str]) -> bool:
    """Whether each is equal to one of the others."""
    matches = [[_equal(a, b, unread) for b in gold] for a in said]
    return all(map(any, matches)) and all(
        any(row[j] for row in matches) for j in range(len(gold))
    )


def _equal(said: str, gold: str, unread: list[str]) -> bool:
    if r"\cup" in said and r"\cup" in gold:
        sides = said.split(r"\cup"), gold.split(r"\cup")
        return _equal_lists(*sides, unread)
    a, b = _float(said.replace(",", "")), _float(gold.replace(",", ""))
    if a is not None and b is not None and abs(a - b) < CLOSE:
        return True
    return said == gold or _equal_maths(said, gold, unread)


def _equal_maths(said: str, gold: str, unread: list[str]) -> bool:
    if said == gold:
        return True
    a, b = _number(said), _number(gold)
    if a is not None and b is not None:
        return any(math.isclose(a, x, abs_tol=CLOSE) for x in (b / 100, b, b * 100))
    if not said:
        return False
    said, gold = said.strip(), gold.strip()
    inside: Callable[[str, str], bool] = lambda x, y: _equal_maths(x, y, unread)  # noqa: E731
    if _equal_tuples(said, gold, inside) or _equal_matrices(said, gold, inside):
        return True
    equations = said.count("="), gold.count("=")
    (left, _, right), (gold_left, _, gold_right) = (
        said.partition("="),
        gold.partition("="),
    )
    if equations == (1, 1):
        one = f"{left.strip()} - ({right.strip()})"
        other = f"{gold_left.strip()} - ({gold_right.strip()})"
        if _symbolic(one, other, unread) or _symbolic(f"-({one})", other, unread):
            return True
    elif equations == (1, 0) and len(left.strip()) <= 2:
        if inside(right, gold):
            return True
    elif (
        equations == (0, 1) and len(gold_left.strip()) <= 2 and inside(said, gold_right)
    ):
        return True
    return _symbolic(said, gold, unread)


def _equal_tuples(said: str, gold: str, equal: Callable[[str, str], bool]) -> bool:
    """Place by place, whatever the brackets."""
    if not all(re.match(r"[(\[].+[)\]]", x) for x in (said, gold)):
        return False
    a, b = said[1:-1].split(","), gold[1:-1].split(",")
    return len(a) == len(b) and all(map(equal, a, b))


def _equal_matrices(said: str, gold: str, equal: Callable[[str, str], bool]) -> bool:
    if not (_is_matrix(said) and _is_matrix(gold)):
        return False
    a, b = map(_rows, (said, gold))
    if [len(row) for row in a] != [len(row) for row in b]:
        return False
    cells = itertools.chain.from_iterable
    return all(map(equal, cells(a), cells(b)))


def _is_matrix(text: str) -> bool:
    kinds = "{pmatrix}", "{bmatrix}"
    begins = text.startswith(tuple(rf"\begin{kind}" for kind in kinds))
    return begins and text.endswith(tuple(rf"\end{kind}" for kind in kinds))


def _rows(matrix: str) -> list[list[str]]:
    inner = matrix[len(r"\begin{pmatrix}") : -len(r"\end{pmatrix}")]
    lines = (line.strip() for line in inner.split(r"\\"))
    return [line.split("&") for line in lines if line]


def _symbolic(said: str, gold: str, unread: list[str]) -> bool:
    word = equivalent.verdict("paper", gold, said)
    if word == "unread":
        unread.append(said)
    return word == "equal"


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _number(text: str) -> float | None:
    """23.4, 1,234 or 23%."""
    text = text.replace(",", "")
    if (found := _float(text)) is not None or not text.endswith("%"):
        return found
    hundredths = _float(text[:-1].removesuffix("\\"))
    return None if hundredths is None else hundredths / 100


# What is done to a candidate, in order: a pattern and what takes its place.
STEPS = [
    (r"\n", ""),
    (r"\.+\Z", ""),
    (r"\\!", ""),
    (r"\A\\text\{(.*)\}\Z", r"\1"),
    (r"[tdc]frac", "frac"),
    (r"\\left|\\right", ""),
    (r"\A(?!\\text\{)(.+?)\\text\{.*\}\Z", r"\1"),  # a unit behind something
    (r"\^\{\\circ\}|\^\\circ", ""),
    (r"\{[cm]?m\}(?:\^[23])?", ""),
    (r"p\.m\.\Z", ""),
    (r"(\d)\s*t\Z", r"\1"),
    (r"\\\$|\$|x\\in", ""),
    (r"\\%", "%"),
    (r"([ {])\.", r"\g<1>0."),
    (r"\\cdot", ""),
    (r"infinity", r"\\infty"),
    (r"\A((?:(?!\\infty).)*)\Z", lambda whole: whole[1].replace("inf", r"\infty")),
    (r"\\mathbf|\\mathrm", ""),
    (r"\\mbox\{.*?\}", ""),
    (r"\A[^i]*j[^i]*\Z", lambda whole: whole[0].replace("j", "i")),
    (r"(\d)\.0+(\D)", r"\1\2"),
    (r"(\d)\.0+\Z", r"\1"),
    (r"\A\.", "0."),
    (r"\\(sqrt|tan)(-?[0-9.a-zA-Z]+)", r"\\\1{\2}"),
    (r"\\(sqrt|tan)\s+(\w+)\Z", r"\\\1{\2}"),
    (r" ", ""),
]
TRIMMED = 11  # after so many of them spaces at the ends stay
INTEGER = re.compile(r"0|-?[1-9]\d*")
COMPILED = [(re.compile(pattern), by) for pattern, by in STEPS]


def stripped(text: str) -> str:
    """A candidate cleaned up, with what that does to `information` and `2\\cdot3`."""
    text = text.strip()
    for i, (pattern, by) in enumerate(COMPILED):
        text = pattern.sub(by, text)
        text = text.strip() if i < TRIMMED else text
    parts = (text := _with_braces(text)).split("/")
    if len(parts) == 2 and all("sqrt" in x or INTEGER.fullmatch(x) for x in parts):
        text = rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
    return re.sub(r"[\\,.]+\Z", "", text)


def _with_braces(text: str) -> str:
    r"""`\frac12` as `\frac{1}{2}`; all as it is, where one has too little behind it."""
    first, *rest = text.split(r"\frac")
    for i, part in enumerate(rest):
        if part.startswith("{"):
            continue
        if len(part) < 2:
            return text
        under = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
        rest[i] = f"{{{part[0]}}}{under}"
    return r"\frac".join([first, *rest])
