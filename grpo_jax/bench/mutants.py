r"""Answers changed in known ways, to see which checkers notice.

Each change makes of a right answer one that is wrong, or one that is right in another
form; or nothing, where it does not apply.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from grpo_jax.text import forms, units

FRACTION = re.compile(r"\\frac\{(\d+)\}\{(\d+)\}")
ROOT = re.compile(r"(\d+)\s*\\sqrt\{(\d+)\}")


def _number(answer: str) -> Fraction | None:
    form = forms.read(answer)
    return (
        form.number
        if isinstance(form, forms.Leaf) and form.unit == units.Unit()
        else None
    )


def _of_numbers(change: Callable[[Fraction], Fraction | str]):
    def changed(answer: str) -> str | None:
        value = _number(answer)
        if not value:  # 0 has neither a sign nor a multiple
            return None
        after = change(value)
        return after if isinstance(after, str) else _written(after)

    return changed


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value)
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _decimal(answer: str) -> str | None:
    """A fraction as a decimal number, if that ends."""
    value = _number(answer)
    if value is None or value.denominator == 1 or 10**6 % value.denominator:
        return None
    return f"{float(value):.6f}".rstrip("0")


def _negated(answer: str) -> str | None:
    form = forms.read(answer)
    if not isinstance(form, forms.Leaf) or form.number == 0 or form.text[-1:].isalpha():
        return None
    value = form.number
    if value is not None:
        return _written(-value)
    return f"-({form.formula})" if "=" not in form.formula else None


def _swapped(answer: str) -> str | None:
    found = FRACTION.search(answer)
    if found is None or found[1] in ("0", found[2]) or "," in answer:
        return None
    return FRACTION.sub(rf"\\frac{{{found[2]}}}{{{found[1]}}}", answer, count=1)


def _brackets(answer: str) -> str | None:
    form = forms.read(answer)
    if not isinstance(form, forms.Many) or form.kind not in ("()", "[]", "(]", "[)"):
        return None
    text = forms.undressed(answer)
    return {"(": "[", "[": "("}[text[0]] + text[1:]


def _grouped(answer: str) -> str | None:
    value = _number(answer)
    if value is None or value.denominator > 1 or abs(value) < 1000:
        return None
    return f"{value.numerator:,}".replace(",", "{,}")


def _in_unit(answer: str) -> str | None:
    return None if _number(answer) is None else rf"{answer}\text{{ cm}}"


def _under_root(answer: str) -> str | None:
    found = ROOT.search(answer)
    if found is None:
        return None
    inside = int(found[1]) ** 2 * int(found[2])
    return ROOT.sub(rf"\\sqrt{{{inside}}}", answer, count=1)


def _reordered(answer: str) -> str | None:
    form = forms.read(answer)
    parts = answer.split(",")
    is_set = isinstance(form, forms.Many) and form.kind == "set"
    if not is_set or len(form.items) != len(parts) or set("()[]{}") & set(answer):
        return None
    return ", ".join(part.strip() for part in reversed(parts))


def _displayed(answer: str) -> str:
    for short, long in ((r"\frac", r"\dfrac"), ("(", r"\left("), (")", r"\right)")):
        answer = answer.replace(r"\left" + short, short).replace(
            r"\right" + short, short
        )
        answer = answer.replace(short, long)
    return answer


def _named(answer: str) -> str | None:
    return None if _number(answer) is None else f"n = {answer}"


WRONG = {
    "sign changed": _negated,
    "times 100": _of_numbers(lambda x: x * 100),
    "over 100": _of_numbers(lambda x: _decimal(_written(x / 100)) or x / 100),
    "fraction swapped": _swapped,
    "first bracket changed": _brackets,
    "one more": _of_numbers(lambda x: x + 1),
    "0.0009 more": _of_numbers(lambda x: x + Fraction(9, 10000)),
    "with the next in a list": _of_numbers(
        lambda x: f"{_written(x)}, {_written(x + 1)}"
    ),
    "as a sum left undone": _of_numbers(lambda x: f"{_written(x - 1)} + 1"),
}
RIGHT = {
    "as it is": str,
    "displayed": _displayed,
    "in centimetres": _in_unit,
    "with a name": _named,
    "in groups of three digits": _grouped,
    "as a decimal": _decimal,
    "under the root": _under_root,
    "in another order": _reordered,
}
