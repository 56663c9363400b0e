r"""The answer that a text ends with: after `####`, in `\boxed{}`, or its last number.

Nothing is evaluated. A number is compared as a fraction, so 0.5 is 1/2 and 1,000 is
1000; what is no number is compared as text without its spaces.
"""

import re
from fractions import Fraction

NUMBER = re.compile(
    r"-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)\.)?(?:/\d+)?", re.ASCII
)
LONGEST = 1000  # characters of a number: Python takes very long over more


BOX = re.compile(r"\\f?box(?:ed)?(?: *(\{)| +(\w+))")


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}`, braces in it balanced; or `\boxed 2`."""
    *_, last = [None, *BOX.finditer(text)]
    if last is None or last[2]:
        return last and last[2]
    start, depth = last.end(), 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end].strip()
    return None


def hashed(text: str) -> str | None:
    """What stands behind the last `####`, up to the end of its line."""
    _, mark, rest = text.rpartition("####")
    return rest.strip().split("\n")[0].strip() or None if mark else None


def final(text: str) -> str | None:
    """What was given as the answer: boxed or hashed, whichever is last."""
    *_, box = [-1, *(found.start() for found in BOX.finditer(text))]
    first, second = (boxed, hashed) if box > text.rfind("####") else (hashed, boxed)
    return first(text) or second(text)


def last(text: str) -> str | None:
    """Its last word."""
    return text.split()[-1] if text.strip() else None


def canonical(answer: str) -> Fraction | str:
    """Equal for answers that are the same number, or the same text."""
    plain = re.sub(r"\s|\\[!,;: ]|\\?\$|\\?%$|\.$", "", answer)
    if len(plain) > LONGEST:
        return plain
    fraction = re.fullmatch(r"(-?)\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", plain)
    if fraction:
        plain = f"{fraction[1]}{fraction[2]}/{fraction[3]}".replace("--", "")
    if plain and NUMBER.fullmatch(plain):
        try:
            return Fraction(plain.replace(",", ""))
        except (ValueError, ZeroDivisionError):
            return plain
    return plain


def same(a: str | None, b: str | None) -> bool:
    """Whether two answers are the same. No answer is none, not even the same."""
    return a is not None and b is not None and canonical(a) == canonical(b)
