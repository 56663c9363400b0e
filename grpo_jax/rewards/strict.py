r"""Whether an answer is right, for a reward: what cannot be told to be right is wrong.

Numbers are compared as exact fractions, tuples, intervals and matrices place by place
with their brackets, sets whatever their order; formulas by algebra, in a process that
can be killed (see `equivalent`). Where the right answer is a number, only a number
will do, not a sum left undone. `50%` is a number of hundredths, and only where the
question asks for such. What stands in the question is no answer by algebra: there the
task is to change it.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from grpo_jax.rewards import equivalent
from grpo_jax.text import forms
from grpo_jax.text.forms import Form, Leaf, Many, Named

PERCENT = re.compile(r"percent|%|百分", re.IGNORECASE)
ORDERED = re.compile(r"\border|least to|greatest to|smallest to|largest to")
UNORDERED = "set", "union"
LONGEST = 200  # characters of a formula; MATH's longest has 99
_COMMANDS = """
frac sqrt pi cdot times div pm infty le leq ge geq ne neq sin cos tan sec csc cot arcsin
arccos arctan log ln alpha beta gamma delta theta phi omega lambda mu sigma
"""
COMMANDS = set(_COMMANDS.split())
FORMULA = re.compile(r"[A-Za-z0-9+\-*/^_=<>()\[\].{}|,\\ ]*", re.ASCII)
COMMAND = re.compile(r"\\([A-Za-z]+)")
# Powers of powers; of five digits, or of three that are not those of a letter or a
# small number; numbers of more than 20 digits. Then what is no product: numerals with
# a base, names of points, words.
ABSURD = re.compile(
    r"\^\{[^{}]*[\^{]|\^\{[^{}]*\d{5}|(?:[^0-9A-Za-z]|\d{3})\^\{[^{}]*\d{3}"
    r"|\d{21}|\d\s*_|(?<![\\A-Za-z])(?:[A-Za-z]*[A-Z]{2}|[A-Za-z]{4})"
)


class Context(NamedTuple):
    """What answers are compared for."""

    question: str
    gold: str

    @property
    def is_percent(self) -> bool:
        return bool(PERCENT.search(self.gold) or PERCENT.search(self.question))

    @property
    def is_ordered(self) -> bool:
        return bool(ORDERED.search(self.question))


def is_right(question: str, said: str | None, gold: str) -> bool:
    """Whether what was said is the right answer. No answer never is."""
    return said is not None and _same(Context(question, gold), gold, said)


def votes(question: str, gold: str, said: Sequence[str | None]) -> list[int | None]:
    """For each answer a number, equal for equal answers; 0 for right ones alone."""
    context, first = Context(question, gold), [gold]
    found: dict[str | None, int | None] = {None: None}
    for one in said:
        if one not in found:
            alike = (i for i, x in enumerate(first) if _same(context, x, one))
            found[one] = next(alike, len(first))
            first += [one] * (found[one] == len(first))
    return [found[one] for one in said]


def _same(context: Context, gold: str, said: str) -> bool:
    if gold == said:
        return True
    if len(said) > forms.LONGEST or not said.strip():
        return False
    forms_ = forms.read(gold), forms.read(said)
    if _alike(context, *forms_):
        return True
    if isinstance(forms_[0], Leaf) and forms_[0].number is not None:
        return False
    return forms.squeezed(forms.undressed(gold)) == forms.squeezed(
        forms.undressed(said)
    )


def _alike(context: Context, gold: Form, said: Form) -> bool:
    if isinstance(gold, Named) and isinstance(said, Named) and gold.name != said.name:
        return False
    gold, said = (x.form if isinstance(x, Named) else x for x in (gold, said))
    if isinstance(gold, Leaf) and isinstance(said, Leaf):
        return _alike_leaves(context, gold, said)
    if isinstance(gold, Leaf) or isinstance(said, Leaf):
        return False
    return _alike_many(context, gold, said)


def _alike_many(context: Context, gold: Many, said: Many) -> bool:
    if gold.kind != said.kind or len(gold.items) != len(said.items):
        return False
    left = list(said.items)
    if gold.kind in UNORDERED and not context.is_ordered:
        for item in gold.items:
            at = next((x for x in left if _alike(context, item, x)), None)
            if at is None:
                return False
            left.remove(at)
        return True
    return all(_alike(context, *pair) for pair in zip(gold.items, left, strict=True))


def _alike_leaves(context: Context, gold: Leaf, said: Leaf) -> bool:
    if gold.unit and said.unit and gold.unit != said.unit:
        return False
    if said.is_percent and not context.is_percent:
        return False
    if gold.number is not None:
        return gold.number == said.number
    if gold.text == said.text:
        return True
    if not (_is_formula(gold.formula) and _is_formula(said.formula)):
        return False
    if "." in said.formula and "." not in gold.formula:
        return False  # rounded
    asked = forms.squeezed(forms.undressed(context.question))
    if said.text in asked and gold.text not in asked:
        return False
    return equivalent.equal(gold.formula, said.formula)


def _is_formula(text: str) -> bool:
    """Whether algebra may be tried: known commands, and nothing absurd."""
    return (
        0 < len(text) <= LONGEST
        and FORMULA.fullmatch(text) is not None
        and COMMANDS.issuperset(COMMAND.findall(text))
        and not ABSURD.search(text)
    )
