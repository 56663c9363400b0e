r"""The steps of a solution, and the tokens that they end with (paper 4.1.3).

A step is a line. One that is blank belongs to the step before it, at the beginning to
the first. A step ends with the token that holds its newline, whatever else that token
holds; what stands behind the last newline is a step as well, and the last step ends
with the last token, be it the end of the text or the one at which it was cut off. So
every token is in exactly one step. Lines that end in one token are one step.

Tokens are searched for newlines, and not for characters. A newline is one byte in every
tokenizer, and no part of another character: the j-th of a text is in the token that
holds the j-th of all. Only bytes that are no UTF-8 may swallow one when they are read
together; such a text is one step.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

NEWLINE = "\n"


class Steps(NamedTuple):
    texts: list[str]  # without the newline at the end, and without blank lines
    ends: list[int]  # the place of each one's last token


class Splitter:
    """Cuts what was written with one tokenizer; remembers the tokens it has seen."""

    def __init__(self, decode: Callable[[Sequence[int]], str], size: int):
        self.decode = decode
        self.newlines = np.full(size, -1, np.int32)  # of each id; −1: not looked at

    def split(self, ids: Int[np.ndarray, "T"], text: str) -> Steps:
        """The steps of a text of at least one token, which these ids are read as."""
        new = np.unique(ids[self.newlines[ids] < 0])
        for i in new.tolist():
            self.newlines[i] = self.decode([i]).count(NEWLINE)
        held = np.repeat(np.arange(len(ids)), self.newlines[ids])
        return cut(text, held.tolist(), len(ids) - 1)


def lines(text: str) -> list[str]:
    """The steps of a text, whatever its tokens are."""
    count = text.count(NEWLINE)
    return cut(text, range(count), count).texts


def cut(text: str, held: Sequence[int], last: int) -> Steps:
    """The steps of a text whose newlines are held by these tokens, in their order."""
    found = text.split(NEWLINE)
    if len(found) != len(held) + 1:
        return Steps([text], [last])
    texts, ends = [], []
    for line, end in zip(found, [*held, last], strict=True):
        is_blank = not line.strip()
        if texts and (is_blank or end == ends[-1]):
            ends[-1] = end
            texts[-1] += "" if is_blank else NEWLINE + line
        elif not is_blank:
            texts.append(line)
            ends.append(end)
    return Steps(texts, ends) if texts else Steps([""], [last])
