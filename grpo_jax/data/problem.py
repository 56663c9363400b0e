"""What a run asks, and in which order.

Row i of the stream of questions is `order(seed, i // n, n)[i % n]` of n problems: every
problem once before any a second time, and nothing to be kept besides i.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int

Asked = TypeVar("Asked")  # whatever has a question


class Problem(NamedTuple):
    question: str
    answer: str | None  # what a checker compares with; None: nobody knows it
    demonstration: str | None = None  # how it may be answered
    kind: str = ""  # of questions: a level, a subject


@functools.lru_cache(8)
def order(seed: int, epoch: int, n: int) -> Int[np.ndarray, "n"]:
    """Of n rows in one epoch. Philox is the same everywhere, by NumPy's promise."""
    return np.argsort(np.random.Philox(key=[seed, epoch]).random_raw(n), kind="stable")


def row(seed: int, number: int, n: int) -> int:
    """Of question `number` of the stream."""
    return int(order(seed, number // n, n)[number % n])


def parted(found: Sequence[Asked], share: float) -> tuple[list[Asked], list[Asked]]:
    """What is trained on, and such a share of the questions that is held out."""
    held = [is_held_out(one.question, share) for one in found]
    pairs = list(zip(found, held, strict=True))
    return [x for x, out in pairs if not out], [x for x, out in pairs if out]


def is_held_out(question: str, share: float) -> bool:
    """Whether a question belongs to the validation split: by its text alone, so that
    it does in every run, and beside whatever other questions."""
    digest = hashlib.sha256(question.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
