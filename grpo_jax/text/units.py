r"""Units behind a number: `5 \text{ cm}`, `18 dollars a day`, `30^\circ`.

A unit may be left out, and any words may stand for it that say nothing of how many;
but where two answers have units that are known and are different, they are different.
"""

import re

SAME = {  # what a word is counted as: units of one line are the same
    "centimeter": "cm centimeter centimeters centimetre centimetres",
    "millimeter": "mm millimeter millimeters",
    "meter": "m meter meters metre metres",
    "kilometer": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yds yard yards",
    "mile": "mi mile miles mph",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours mph",
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
    "degree": "degree degrees",
    "radian": "radian radians rad",
    "morning": "am",
    "afternoon": "pm",
}
KNOWN = {word: name for name, words in SAME.items() for word in words.split()}
SHORT = {"a", "an", "of", "in", "per", "sq", "cu", "the", "each", "units", "unit"}
# What says how many, or that it is another number, or a formula.
_NO_UNIT = """
and or not to but if is than between either neither plus minus times over by then also
percent percentage thousand thousands million millions billion billions hundred
hundreds dozen dozens half halves third thirds quarter quarters double twice pair pairs
score one two three four five six seven eight nine ten mod choose squared pi sqrt log
sin cos tan exp maybe equals inf infinity i e x y z n k
"""
NO_UNIT = set(_NO_UNIT.split())
MOST = 6  # words of a unit
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
POWER = re.compile(r"(?<=[A-Za-z}])(?:\^\s*(?:\{\s*[23]\s*\}|[23])|[²³])")
DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))")
BEHIND = re.compile(
    r"(?:\\text\s*\{[^{}]*[A-Za-z]{2}[^{}]*\}(?:\^\{?[23]\}?)?"
    r"|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ)\s*$"
)


def read(rest: str) -> frozenset[str] | None:
    """The known ones among the words behind a number; None: that is no unit."""
    if not rest.strip():
        return frozenset()
    rest = DEGREES.sub(" degrees ", POWER.sub("", rest))
    bare = TEXT.sub("", rest)
    if bare.strip(" ./") and not _may_be_bare(bare, rest):
        return None
    words = _words(rest)
    if words is None or len(words) > MOST or NO_UNIT & {w.lower() for w in words}:
        return None
    return _known(words)


def cut(text: str) -> tuple[str, frozenset[str]]:
    r"""A formula without the unit in `\text{}` behind it, and that."""
    found = BEHIND.search(text)
    if found is None or not text[: found.start()].strip():
        return text, frozenset()
    unit = read(found[0])
    return (text, frozenset()) if unit is None else (text[: found.start()], unit)


def _may_be_bare(bare: str, rest: str) -> bool:
    """Whether words need no `\\text`: of `5 cm`, `5cm`, `5 apples`; `5x` is none."""
    words = bare.replace("/", " ").replace(".", "").split()
    first = rest.lstrip()[: len(words[0])] if words else ""
    is_apart = rest[:1].isspace() or first != words[0]
    known = [w in KNOWN and (len(w) > 1 or is_apart) for w in words]
    long = [len(w) > 2 or w in SHORT for w in words]
    return known[0] or (
        is_apart and all(a or b for a, b in zip(known, long, strict=True))
    )


def _words(rest: str) -> list[str] | None:
    text = TEXT.sub(r" \1 ", rest)
    text = re.sub(r"\b([ap])\.\s*m\b\.?", r"\1m", text, flags=re.IGNORECASE)
    text = text.replace("/", " per ")
    if not re.fullmatch(r"[A-Za-z .,'()-]*", text):
        return None
    return re.sub(r"[.,'()-]", " ", text).split()


def _known(words: list[str]) -> frozenset[str]:
    found = (KNOWN.get(word, KNOWN.get(word.lower())) for word in words)
    return frozenset(name for name in found if name)
