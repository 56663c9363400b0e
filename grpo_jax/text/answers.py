r"""Where a text gives its answer: in its last `\boxed{}`, or on its last `####` line.

Whichever stands last is the answer, and if that is unfinished there is none. Braces are
balanced, `\{` is none, and of a box within a box the outer one counts. `####` is a mark
at the beginning of a line only: elsewhere it is talk.
"""

import re

MARK = re.compile(r"^[ \t]*####(?!#)([^\n]*)", re.MULTILINE)
# A box that opens; or holds one word without braces, as some of MATH's; or a brace.
DEEPEST = 500  # braces within braces; there is no answer where there are more
# An answer that was begun: a box, or a line that gives one.
BEGUN = re.compile(r"\\f?bo|\\fb|^[ \t]*#", re.MULTILINE)
BOX = re.compile(r"(\\f?box(?:ed)?[ \t]*\{)|\\f?box(?:ed)?[ \t]+(\w+)|\\[{}\\]|([{}])")


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}`, or after `\boxed`; None if it is open."""
    return _last_box(text)[1]


def hashed(text: str) -> str | None:
    """What stands on the last line that begins with `####`."""
    return _last_mark(text)[1]


def final(text: str) -> str | None:
    """What was given as the answer: boxed or hashed, whichever is last."""
    return max(_last_box(text), _last_mark(text), key=lambda found: found[0])[1]


def last(text: str) -> str | None:
    """Its last word."""
    return text.split()[-1] if text.strip() else None


def whole(text: str) -> str:
    """A text that was cut, without its last word, which may be unfinished: `18` may
    have been going to be `180`. Nothing, where that word or line gives an answer: what
    was said before is none any more."""
    start = text.rfind("\n") + 1
    if not MARK.match(text, start):
        start = 1 + max(text.rfind(end) for end in " \t\n}")
    return "" if BEGUN.search(text, start) else text[:start]


def _last_mark(text: str) -> tuple[int, str | None]:
    if "####" not in text:
        return -1, None
    *_, mark = [None, *MARK.finditer(text)]
    return (-1, None) if mark is None else (mark.start(), mark[1].strip() or None)


def _last_box(text: str) -> tuple[int, str | None]:
    """Where it begins, and what is in it."""
    first = text.find("\\")
    if first < 0 or "box" not in text:
        return -1, None
    start, span, end = -1, (0, 0), -1  # of the box that closed last, and of its inside
    opened: list[tuple[int, int] | None] = []  # None: a brace that is no box's
    for token in BOX.finditer(text, first):
        if token[1]:
            opened.append(token.span())
        elif token[2]:
            start, span, end = token.start(), token.span(2), token.end()
        elif token[3] == "{":
            opened.append(None)
        elif token[3] and opened and (box := opened.pop()):
            around = text[box[1] : max(start, box[1])] + text[end : token.start()]
            # A box that holds a box alone says what that says.
            if start < box[1] or around.strip():
                span = box[1], token.start()
            start, end = box[0], token.end()
        if len(opened) > DEEPEST:
            return len(text), None
    still = max((box[0] for box in opened if box), default=-1)
    return (
        (still, None) if still > start else (start, text[slice(*span)].strip() or None)
    )
