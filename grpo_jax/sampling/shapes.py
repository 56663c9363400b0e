"""The few shapes that a rollout is computed in, so that nothing compiles midway.

Rows stand in blocks: `Shape(blocks, rows)` has that many questions at once, each with
up to that many rows; one with more takes several. As rows end, what is left is laid
into a smaller shape, with smaller blocks. Where a block is a whole group, its question
stands once.
"""

import math
from typing import NamedTuple


class Shape(NamedTuple):
    blocks: int
    rows: int  # of a block

    @property
    def size(self) -> int:
        return self.blocks * self.rows

    def holds(self, live: list[int]) -> bool:
        """Whether groups with so many live rows fit in."""
        return sum(-(-n // self.rows) for n in live) <= self.blocks


def few(n: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, ...: at most a third is for nothing."""
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if power > 2 and n <= power * 3 // 4 else power


def length(n: int) -> int:
    """The same of tokens, from 16 on."""
    return few(max(n, 16))


def shortened(most: int, n: int) -> int:
    """The least of most, 3/4 of it, 1/2, 3/8, 1/4, ... from 16 on, that holds n."""
    while most > 16 and -(-most // 2) >= max(n, 16):
        most = -(-most // 2)
    less = -(-most * 3 // 4)
    return less if less >= max(n, 16) else most


def ladder(
    questions: int, group: int, prompt: int, rungs: int, *, by_group: bool
) -> list[Shape]:
    """At most that many shapes, the first of all rows, the last of one or a few.

    A step of n rows costs about as much as n + STEP: what a step costs falls from shape
    to shape by one factor. If all questions stand there from the first to the last row,
    the first shape's blocks are whole groups (`by_group`).
    """
    whole = questions * group
    rows = group if by_group else _block(whole, questions, prompt, group)
    while group % rows:
        rows //= 2
    shapes = [Shape(whole // rows, rows)]
    least = math.log((whole + STEP) / (1 + STEP))  # from the first to the last shape
    count = min(rungs - 1, math.ceil(least / math.log(FINEST)))
    for rung in range(1, count + 1):
        size = (whole + STEP) * math.exp(-least * rung / count) - STEP
        size = max(1, round(size))
        rows = _block(size, questions, prompt, group)
        shape = Shape(math.ceil(size / rows), rows)
        if shape.size < shapes[-1].size:
            shapes.append(shape)
    return shapes


def _block(size: int, questions: int, prompt: int, group: int) -> int:
    """Rows of a block, if so many rows are left of these questions.

    Small blocks waste few rows, large ones read their question fewer times. A row costs
    about as much as reading 256 positions of a question: with R rows of Q questions the
    best block is near √(2 · prompt/256 · R/Q).
    """
    best = math.sqrt(2 * prompt / 256 * size / min(questions, size))
    return min(group, 1 << max(0, round(math.log2(best))))


STEP = 24  # rows that could be decoded in the time that a step takes without any
FINEST = 1.25  # less than that is not worth a program


def columns(needed: int, segment: int, most: int) -> int:
    """Room in the cache: one, two, four, ... segments, and never more than are used."""
    segments = 1 << (-(-needed // segment) - 1).bit_length()
    return min(segments, -(-most // segment)) * segment
