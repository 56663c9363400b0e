"""The few shapes that a rollout is computed in, so that nothing compiles midway.

Rows stand in blocks: `Shape(blocks, rows)` has that many questions at once, each with
up to that many rows. The first shape holds whole groups, whose question stands once. As
rows end, what is left is laid into a smaller shape, with smaller blocks: a question
with more rows than a block takes several.
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


def ladder(questions: int, group: int, prompt: int, rungs: int) -> list[Shape]:
    """Shapes from the largest down: about 3/4, 1/2, 3/8, 1/4, ... of its rows.

    Small blocks waste few rows; large ones read their question's keys fewer times. A
    row costs about as much as reading 256 positions of a question, so with R rows of Q
    questions the best block is near √(2 · prompt/256 · R/Q).
    """
    shapes = [Shape(questions, group)]
    whole = questions * group
    for rung in range(1, rungs):
        size = whole * (0.5 if rung % 2 == 0 else 0.75) * 0.5 ** ((rung - 1) // 2)
        best = math.sqrt(2 * prompt / 256 * size / min(questions, size))
        rows = min(group, 1 << max(0, round(math.log2(best))))
        shape = Shape(math.ceil(size / rows), rows)
        if shape.size < shapes[-1].size:
            shapes.append(shape)
    return shapes


def columns(needed: int, segment: int, most: int) -> int:
    """Room in the cache: one, two, four, ... segments, and never more than are used."""
    segments = 1 << (-(-needed // segment) - 1).bit_length()
    return min(segments, -(-most // segment)) * segment
