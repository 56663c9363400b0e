r"""An answer as what it says, without its dress: `\$1{,}234.50` is the number 2469/2.

A form is a leaf (a number as an exact fraction with its unit, or a formula, or words),
or several forms: a tuple or interval with its brackets, a matrix, a union, a set. A
list without brackets is a set. Nothing is evaluated: `3+5` is a formula, not 8.
"""

import functools
import re
from fractions import Fraction
from typing import NamedTuple

from grpo_jax.text import units

LONGEST = 1000  # characters of an answer that is looked into
DEEPEST = 6  # brackets within brackets


class Leaf(NamedTuple):
    text: str  # without its unit and needless spaces: the same for the same formula
    formula: str  # as it can be read
    number: Fraction | None
    unit: units.Unit
    is_percent: bool


class Many(NamedTuple):
    kind: str  # "()", "[)", ..., "matrix", "union", "set"
    items: tuple


class Named(NamedTuple):
    """`x = 5`: it may be left out which name the answer has."""

    name: str
    form: "Leaf | Many"


Form = Leaf | Many | Named

WIDE = {0xFF01 + i: 0x21 + i for i in range(94)}  # fullwidth ASCII
WIDE |= str.maketrans({"−": "-", "–": "-", "\xa0": " ", "　": " ", "。": "."})
WIDE |= str.maketrans({"π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "°": r"^\circ "})
WIDE |= str.maketrans({"√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "})
WIDE |= str.maketrans({"×": r"\times ", "÷": r"\div ", "·": r"\cdot "})
WIDE |= str.maketrans({"²": "^2", "³": "^3"})
# Of money; of pounds it is not told which.
SIGNS = {"$": "dollars", "\\$": "dollars", "€": "euros", "£": "pounds", "¥": "yen"}
MONEY = re.compile(r"(\s*-?\s*)(\\?\$|[€£¥])(\s*[\d.][^$]*)", re.DOTALL)
DRESS = [
    # What stands between digits parts them, but where it parts thousands.
    (r"(?<=\d)(?:\\?\$|\\[()\[\]]|[€£¥]|\\[!,](?!\d{3}(?!\d)))+(?=\d)", " "),
    (r"\\?\$|(?<!\\)\\[()\[\]]|(?<!\\)\\[!,]|[€£¥]", ""),
    (r"(?<!\\)\\[;:> ]|(?<!\\)\\q?quad(?![a-zA-Z])|~|\s", " "),
    (r"\\(?:left|right|displaystyle|[bB]ig[gG]?[lr]?)(?![a-zA-Z])", ""),
    (
        r"\\(?:text(?:bf|rm|it|normal)|math(?:rm|bf|it)|mbox|operatorname|boldsymbol|underline)(?![a-zA-Z])",
        r"\\text",
    ),
    (r"\\[dtc]frac", r"\\frac"),
    (r"\{,\}", ","),
    (r"\\%", "%"),
    (r"\\frac\s*([0-9A-Za-z]|\\pi)", r"\\frac{\1}"),
    (r"(\\frac\{[^{}]*\})\s*([0-9A-Za-z])", r"\1{\2}"),
    (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
    (r"^\s*(?:\\approx|\\sim|[A-Za-z]\s*\\in(?![a-zA-Z]))", ""),
]
DRESS = [(re.compile(pattern), by) for pattern, by in DRESS]
DRESSED = re.compile(r"[\\$€£¥~{\t\n\r\f\v]")  # whatever else is there stays
PLAIN = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
NUMBER = re.compile(
    r"""(?P<sign>[-+]?)\s*(?:
    (?P<base>\d+(?:\.\d+)?)\s*\\(?:times|cdot)\s*10\^(?P<power>\{-?\d{1,2}\}|\d)
    |(?:(?P<whole>\d+)\s*)?\\frac\{\s*(?P<top>-?\d+)\s*\}\{\s*(?P<under>-?\d+)\s*\}
    |(?:(?P<wholes>\d+)\s+)?(?P<over>\d+)\s*/\s*(?P<below>\d+)
    |(?P<plain>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)
    )(?![\d.,]*\d)""",
    re.ASCII | re.VERBOSE,
)
CONJUNCTION = re.compile(
    r"\s*(?:\\text\s*\{[\s,]*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
NAME = re.compile(
    r"((?:[A-Za-z]|[A-Z]{2,3}|\\[a-z]+|\\text\s*\{[A-Za-z ]+\})"
    r"(?:_\{?\w+\}?)?(?:\([a-z]\))?)\s*=(?!=)"
)
PERCENT = re.compile(r"%+$|(?<![A-Za-z])(?:per\s?cent|pct)$", re.IGNORECASE)
SPACE = re.compile(r"\s+")
BRACED = re.compile(r"\{(\w)\}")
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


@functools.lru_cache(1 << 14)
def read(answer: str) -> Form:
    """What an answer says."""
    if PLAIN.fullmatch(answer) and len(answer) < LONGEST:
        return Leaf(answer, answer, _fraction(answer), units.Unit(), False)
    text = undressed(answer)
    if len(text) > LONGEST:
        return Leaf(text, text, None, units.Unit(), False)
    return _form(text, 0)


def undressed(answer: str) -> str:
    """Without dollars, spacing, bold type and the like; short ways written out."""
    text = answer if answer.isascii() else answer.translate(WIDE)
    if len(text) > LONGEST:
        return text
    if text.startswith("$") and text.endswith("$") and len(text) > 2:
        text = text[1:-1]
    money = MONEY.fullmatch(text)
    if money and len(text) < LONGEST:
        text = rf"{money[1]}{money[3]} \text{{ {SIGNS[money[2]]}}}"
    if DRESSED.search(text):
        for pattern, by in DRESS:
            text = pattern.sub(by, text)
    return _trimmed(text)


def squeezed(text: str) -> str:
    """Equal for what differs in spaces and needless braces alone."""
    return BRACED.sub(r"\1", SPACE.sub("", TEXT.sub(r"\1", text)))


def _trimmed(text: str) -> str:
    text = text.strip(" *").rstrip(" .,;:")
    if text.startswith("{") and text.endswith("}") and _is_one(text):
        text = text[1:-1].strip()
    return text[6:-1].strip() if re.fullmatch(r"\\text\{[^{}]*\}", text) else text


def _form(text: str, depth: int) -> Form:
    text = _trimmed(text)
    leaf = _leaf(text)
    if leaf.number is not None or depth > DEEPEST or not text:
        return leaf
    named = NAME.match(text)
    if named and (number := _leaf(_trimmed(text[named.end() :]))).number is not None:
        return Named(squeezed(named[1]), number)  # its commas divide nothing
    deeper = functools.partial(_form, depth=depth + 1)
    if found := MATRIX.fullmatch(text):
        rows = (row.split("&") for row in found[2].split(r"\\") if row.strip())
        return Many("matrix", tuple(Many("row", _all(row, deeper)) for row in rows))
    for kind, parts in (
        ("union", _split(text.replace(r"\cup", "∪"), "∪")),
        ("set", _split(CONJUNCTION.sub(",", text), ",;")),
    ):
        if len(parts) > 1:
            return Many(kind, _all(parts, deeper))
    if text.startswith(r"\{") and text.endswith(r"\}"):
        parts = _split(text[2:-2], ",;")
        return Many("set", _all(parts, deeper)) if len(parts) > 1 else leaf
    if text[0] in "([" and text[-1] in ")]" and _is_one(text):
        parts = _split(text[1:-1], ",")
        if len(parts) > 1:
            return Many(text[0] + text[-1], _all(parts, deeper))
        return deeper(text[1:-1]) if text[0] + text[-1] == "()" else leaf
    if text.count(r"\pm") == 1:
        return Many("set", _all([text.replace(r"\pm", s) for s in "+-"], deeper))
    if named:
        inner = deeper(text[named.end() :])
        return leaf if isinstance(inner, Named) else Named(squeezed(named[1]), inner)
    return leaf


def _all(parts, deeper) -> tuple:
    return tuple(map(deeper, parts))


def _split(text: str, at: str) -> list[str]:
    """Parts between separators that stand in no bracket; none of them empty."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c in at and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part for part in (*parts, text[start:]) if part.strip()]


def _is_one(text: str) -> bool:
    """Whether the bracket that opens first closes last."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if depth == 0:
            return i == len(text) - 1
    return False


def _leaf(text: str) -> Leaf:
    body, is_percent = text, False
    if found := PERCENT.search(text):
        body, is_percent = text[: found.start()].rstrip(), True
    found = NUMBER.match(body)
    if found:
        unit = units.read(body[found.end() :])
        number = None if unit is None else _value(found)
        if number is not None:
            return Leaf(squeezed(found[0]), found[0].strip(), number, unit, is_percent)
    body, unit = units.cut(body)
    body = SPACE.sub(" ", body).strip()
    is_word = re.fullmatch(r"[A-Za-z' -]*[A-Za-z]{3}[A-Za-z' -]*", body)
    words = squeezed(body.casefold() if is_word else body)
    return Leaf(words, body, None, unit, is_percent)


def _value(found: re.Match) -> Fraction | None:
    """Of a number; None of one over nothing."""
    part = found.groupdict()
    if part["base"]:
        value = Fraction(part["base"]) * Fraction(10) ** int(part["power"].strip("{}"))
    elif part["plain"]:
        value = _fraction(part["plain"].replace(",", "").removesuffix("."))
    else:
        top, under = part["top"] or part["over"], int(part["under"] or part["below"])
        whole = part["whole"] or part["wholes"]
        if under == 0 or (whole and (top.startswith("-") or under < 0)):
            return None
        value = int(whole or 0) + Fraction(int(top), under)
    return -value if part["sign"] == "-" else value


def _fraction(text: str) -> Fraction:
    """Of a decimal number; of a whole one in a tenth of the time."""
    return Fraction(text) if "." in text else Fraction(int(text))
