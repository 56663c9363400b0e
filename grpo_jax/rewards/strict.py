r"""Whether an answer is right, for a reward: what cannot be told to be right is wrong.

Numbers are compared as exact fractions, tuples, intervals and matrices place by place
with their brackets, sets whatever their order; formulas by algebra, in a process that
can be killed (see `equivalent`). Where the right answer is a number, only a number
will do, not a sum left undone. `50%` is a number of hundredths, and only where the
question asks for such. Where a formula of the question is equal to the right answer,
the task is to change it: then algebra lets the terms of the right answer stand in
another order, and no more.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from grpo_jax.rewards import equivalent
from grpo_jax.text import forms, units
from grpo_jax.text.forms import Form, Leaf, Many, Named

PERCENT = re.compile(r"per\s?cent|%|百分", re.IGNORECASE)
SO_MANY_PERCENT = re.compile(r"\d[\d.,{}!\\]*\s*\$?\s*(?:\\?%|per\s?cent(?!age)|\\%)")
ASKS = re.compile(
    r"[^.?!]*(?:\.\d[^.?!]*)*[?？]|(?:^|[.!?\n])\s*(?:Find|Express|Determine|Compute"
    r"|Calculate|Write|Give|Convert|Estimate)[^?!]*?(?:\.(?!\d)|$)|[^.?!\n]+$"
)
ORDERED = re.compile(
    r"(?<!any )(?<!either )(?<!some )(?<!that )(?<!no )(?<!particular )(?<!which )"
    r"\border\b(?! to\b)|\b(?:a|de)scending|(?:least|greatest|smallest|largest) to"
)
UNORDERED = "set", "union"
LONGEST = 200  # characters of a formula; MATH's longest has 99
_COMMANDS = """
frac sqrt pi cdot times div pm infty le leq ge geq ne neq sin cos tan sec csc cot arcsin
arccos arctan log ln alpha beta gamma delta theta phi omega lambda mu sigma
"""
COMMANDS = set(_COMMANDS.split())
FORMULA = re.compile(r"[A-Za-z0-9+\-*/^_=<>()\[\].{}|,\\ ]*", re.ASCII)
COMMAND = re.compile(r"\\([A-Za-z]+)")
_FUNCTIONS = "sin cos tan sec csc cot arcsin arccos arctan log ln"
FUNCTIONS = set(_FUNCTIONS.split())
HOW_MANY = re.compile(r"how many (?:more |fewer |full |whole )?([a-z]{3,})", re.I)
RELATION = re.compile(r"[=<>]|\\(?:leq?|geq?|neq?)(?![A-Za-z])")
LETTER = re.compile(r"[A-Za-z]")
MATH = re.compile(r"\$\$?([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
OPERATOR = re.compile(r"[\\^*/+=]|\w-\w")
TERM = re.compile(r"\\[A-Za-z]+|\d+(?:\.\d+)?|\S")
ONE_OVER = re.compile(r"\\frac\{\s*1\s*\}|(?<![\w.)}])1\s*/")
# Powers of powers; of five digits, or of three that are not those of a letter or a
# small number, or of a bracket above 20; numbers of more than 20 digits. Then what is
# no product: numerals with a base, names of points, words.
ABSURD = re.compile(
    r"\^\{[^{}]*[\^{]|\^\{[^{}]*\d{5}|(?:[^0-9A-Za-z]|\d{3})\^\{[^{}]*\d{3}"
    r"|[)\]}|]\^\{[^{}]*[2-9]\d"
    r"|\d{21}|\d\s*_|(?<![\\A-Za-z])(?:[A-Za-z]*[A-Z]{2}|[A-Za-z]{4})"
)


class Context(NamedTuple):
    """What answers are compared for."""

    question: str
    gold: str

    @property
    def is_percent(self) -> bool:
        """Whether the answer is one: `10%` of something is given, not asked for."""
        asked = SO_MANY_PERCENT.sub("", " ".join(ASKS.findall(self.question)))
        return bool(PERCENT.search(self.gold) or PERCENT.search(asked))

    @property
    def is_ordered(self) -> bool:
        return bool(ORDERED.search(self.question))

    def speaks_of(self, words: frozenset[str]) -> bool:
        """Whether words behind a number are the question's, where it is known, or the
        right answer's."""
        if not self.question:
            return True
        known = _vocabulary(self.question) | _vocabulary(self.gold)
        return all(
            word in self.question if not word.isascii() else known & units.alike(word)
            for word in words
        )

    def counts(self, known: frozenset[str]) -> bool:
        """Whether the question asks how many of these there are, or says not."""
        asked = units.KNOWN.get((HOW_MANY.findall(self.question) or [""])[-1].lower())
        return asked is None or any(asked in one for one in known)

    def gives(self, gold: str, said: str) -> bool:
        """Whether the question gives a formula that is equal to the right one, which
        what was said has other terms than."""
        return _terms(said) != _terms(gold) and any(
            _is_formula(one) and equivalent.equal(gold, one)
            for one in _formulas(self.question)
            if forms.squeezed(one) != forms.squeezed(gold)
        )


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
    if isinstance(gold, Named) and isinstance(said, Named):
        if gold.name != said.name:
            return False
    elif any(map(_names_itself, (gold, said))):
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
    known = gold.unit.known, said.unit.known
    if all(known) and known[0] != known[1]:
        return False
    if said.unit.known and not context.counts(said.unit.known):
        return False
    if not context.speaks_of(said.unit.words - gold.unit.words):
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
    if not _is_comparable(gold.formula, said.formula):
        return False
    is_equal = equivalent.equal(gold.formula, said.formula)
    return is_equal and not context.gives(gold.formula, said.formula)


def _names_itself(form: Form) -> bool:
    """`x = x + 1` is no name for x + 1."""
    return (
        isinstance(form, Named)
        and isinstance(form.form, Leaf)
        and form.name in LETTER.findall(COMMAND.sub("", form.form.formula))
    )


def _is_comparable(gold: str, said: str) -> bool:
    """Whether they relate as much to each other, call no other functions than the right
    one, and mean by a letter what that does: for algebra `x = 5` is 5, and X is x."""
    if _relations(gold) != _relations(said):
        return False
    called = {one for one in COMMAND.findall(said) if one in FUNCTIONS}
    if not called <= set(COMMAND.findall(gold)) or ("infty" in gold) != (
        "infty" in said
    ):
        return False
    ours, theirs = (set(LETTER.findall(COMMAND.sub("", x))) for x in (gold, said))
    return not {x for x in theirs - ours if x.swapcase() in ours}


def _relations(formula: str) -> list[str]:
    """Equalities, inequalities, and what says that two differ."""
    found = RELATION.findall(formula)
    return sorted("=" if x == "=" else "ne" if "n" in x else "<" for x in found)


@functools.lru_cache(1 << 10)
def _formulas(question: str) -> tuple[str, ...]:
    """Of a question; and the sides of its equations."""
    found = MATH.findall(question)
    said = [next(filter(None, one)) for one in found] or [
        word for word in question.split() if OPERATOR.search(word)
    ]
    whole = [forms.undressed(one).rstrip(".,;:?") for one in said]
    sides = [side for one in whole if "=" in one for side in one.split("=")]
    return tuple(dict.fromkeys(filter(None, map(str.strip, [*whole, *sides]))))


@functools.lru_cache(1 << 10)
def _vocabulary(text: str) -> frozenset[str]:
    words = re.findall(r"[a-z]+", text.lower())
    return frozenset(form for word in words for form in units.alike(word))


def _terms(formula: str) -> list[str]:
    """Of what it is made, in no order: `1/x` as `\\frac{1}{x}`."""
    text = re.sub(
        r"\\(?:cdot|times)(?![A-Za-z])|[*{}\s]", " ", ONE_OVER.sub("/", formula)
    )
    return sorted(TERM.findall(text.replace(r"\frac", "/")))


def _is_formula(text: str) -> bool:
    """Whether algebra may be tried: known commands, and nothing absurd."""
    return (
        0 < len(text) <= LONGEST
        and FORMULA.fullmatch(text) is not None
        and COMMANDS.issuperset(COMMAND.findall(text))
        and not ABSURD.search(text)
    )
