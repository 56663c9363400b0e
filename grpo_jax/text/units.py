r"""Units behind a number: `5 \text{ cm}`, `18 dollars a day`, `30^\circ`.

A unit may be left out, and words may stand for it that say nothing of how many; but
where two answers have units that are known and are different, they are different. Those
that are not known are kept: whoever knows the question can tell whether they are of it.
"""

import re
from typing import NamedTuple

SAME = {  # what a word is counted as: units of one line are the same
    "centimeter": "cm centimeter centimeters centimetre centimetres",
    "millimeter": "mm millimeter millimeters",
    "meter": "m meter meters metre metres",
    "kilometer": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yds yard yards",
    "mile": "mi mile miles",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "gram": "g gm gram grams",
    "kilogram": "kg kilogram kilograms",
    "pound": "lb lbs pound pounds",
    "ounce": "oz ounce ounces",
    "liter": "L l liter liters litre litres",
    "milliliter": "mL ml milliliter milliliters",
    "cent": "cent cents",
    "dollar": "dollar dollars usd",
    "euro": "euro euros",
    "yen": "yen",
    "yuan": "yuan rmb 元",
    "degree": "degree degrees",
    "radian": "radian radians rad",
    "morning": "am",
    "afternoon": "pm",
}
KNOWN = {word: name for name, words in SAME.items() for word in words.split()}
SHORT = {"of", "in", "the", "units", "unit", "left", "total", "个"}
PER = {"per", "a", "an", "each", "every"}
POWERS = {"square": "²", "sq": "²", "cubic": "³", "cu": "³"}
# What says how many, or that it is another number, or a formula.
_NUMBERS = """
two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty
ninety hundred thousand million billion trillion
"""
_NO_UNIT = """
and or not to but if is than between either neither plus minus times over by then also
percent percentage pct half halves thirds third quarter quarters fifths eighths ninths
twelfths twentieths thirtieths fortieths fiftieths dozen dozens gross lakh crore grand
score double twice pair pairs fold one zero mod choose squared cubed factorial root
power less fewer negative opposite inverse wrong incorrect alternatively versus vs pi
sqrt log sin cos tan exp maybe perhaps possibly equals inf infinity i e x y z n k
"""
NO_UNIT = set(_NO_UNIT.split())
NO_UNIT |= {word + end for word in _NUMBERS.split() for end in ("", "s", "th", "ths")}
NO_HAN = set("零一二三四五六七八九十百千万亿兆两双半几第分之成折倍余多负点打对")
MOST = 6  # words of a unit
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
POWER = re.compile(r"(?<=[A-Za-z}])(?:\^\s*(?:\{\s*([23])\s*\}|([23]))|([²³]))")
DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))")
BEHIND = re.compile(
    r"(?:\\text\s*\{[^{}]*[A-Za-z]{2}[^{}]*\}(?:\^\{?[23]\}?)?"
    r"|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ)\s*$"
)


WORD = re.compile(r"[A-Za-z]+[²³]?|[一-鿿]+[²³]?")
WRITTEN = [
    (re.compile(r"\b([ap])\.\s*m\b\.?", re.IGNORECASE), r"\1m"),
    (re.compile(r"\bmph\b"), "miles per hour"),
    (re.compile(r"\bk(?:ph|mh)\b"), "km per hour"),
    (re.compile("/"), " per "),
]


class Unit(NamedTuple):
    """What words behind a number say, whatever their order."""

    known: frozenset[str] = frozenset()  # `meter`, `meter²`, `/second`
    words: frozenset[str] = frozenset()  # all others


def read(rest: str) -> Unit | None:
    """The words behind a number; None: they are no unit."""
    if not rest.strip():
        return Unit()
    rest = DEGREES.sub(" degrees ", POWER.sub(_raised, rest))
    bare = TEXT.sub("", rest).replace("²", "").replace("³", "")
    if bare.strip(" ./") and not _may_be_bare(bare, rest):
        return None
    words = _words(rest)
    if words is None or len(words) > MOST or any(map(_says_how_many, words)):
        return None
    return _of(words)


def cut(text: str) -> tuple[str, Unit]:
    r"""A formula without the unit in `\text{}` behind it, and that."""
    found = BEHIND.search(text)
    if found is None or not text[: found.start()].strip():
        return text, Unit()
    unit = read(found[0])
    return (text, Unit()) if unit is None else (text[: found.start()], unit)


def alike(word: str) -> set[str]:
    """How it may be written, of one or of several."""
    endings = word.removesuffix("s"), word.removesuffix("es")
    return {word, *endings, word.removesuffix("ies") + "y"}


def _raised(found: re.Match) -> str:
    return {"2": "²", "3": "³"}.get(found[1] or found[2], found[3])


def _may_be_bare(bare: str, rest: str) -> bool:
    """Whether words need no `\\text`: of `5 cm`, `5cm`, `5 apples`; `5x` is none."""
    words = bare.replace("/", " ").replace(".", "").split()
    first = rest.lstrip()[: len(words[0])] if words else ""
    is_apart = rest[:1].isspace() or first != words[0] or not words[0].isascii()
    known = [w in KNOWN and (len(w) > 1 or is_apart) for w in words]
    long = [
        len(w) > 2 or not w.isascii() or w in SHORT | PER | POWERS.keys() for w in words
    ]
    return known[0] or (
        is_apart and all(a or b for a, b in zip(known, long, strict=True))
    )


def _words(rest: str) -> list[str] | None:
    text = TEXT.sub(r" \1 ", rest)
    # A power behind `\text{cm}` is its last word's.
    text = re.sub(r"\s+([²³])", r"\1", text)
    for pattern, by in WRITTEN:
        text = pattern.sub(by, text)
    return None if re.sub(r"[\s.,'()-]", "", WORD.sub("", text)) else WORD.findall(text)


def _says_how_many(word: str) -> bool:
    return word.lower() in NO_UNIT or not NO_HAN.isdisjoint(word)


def _of(words: list[str]) -> Unit | None:
    known, others, per, power = set(), set(), "", ""
    for word in words:
        low = word.lower()
        if low in POWERS:
            power = POWERS[low]
            continue
        if low in PER:
            per = "/"
            continue
        base = word.rstrip("²³")
        name = KNOWN.get(base, KNOWN.get(base.lower()))
        if name:
            known.add(per + name + (power or word[len(base) :]))
        elif low not in SHORT:
            others.add(base.lower())
        per = power = ""
    # `18 square` is no unit.
    return None if power else Unit(frozenset(known), frozenset(others))
