"""Rewards of a completion's tokens: how many there are, and how many come again.

Each is one more reward beside those of the functions, with a weight of its own, in this
order: overlong, repetition, cosine. Lengths are of tokens, the one that ends included.
A sample that no function could score has none of them: they would pass for its reward.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from grpo_jax.rewards.settings import Rewarding

NAN = float("nan")


def overlong(length: int, most: int, last: int) -> float:
    """DAPO's: 0 up to `last` tokens before `most`, then in a line down to −1 at it."""
    return min(max((most - last - length) / last, -1.0), 0.0)


def repetition(tokens: Sequence[int], n: int) -> float:
    """−(1 − different n-grams / n-grams): 0 if none comes twice, or there is none."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) - 1.0 if grams else 0.0


def cosine(length: int, most: int, ends: tuple[float, float]) -> float:
    """From the first of `ends` at no token, in half a cosine, to the second at `most`.

    Right answers may be worth less the longer they are, and wrong ones more.
    """
    short, long = ends
    way = math.cos(math.pi * min(length / most, 1.0))
    return long + (short - long) * (1.0 + way) / 2


def names(chosen: Rewarding) -> list[str]:
    """Those that are given."""
    every = "overlong", "repetition", "cosine"
    return [name for name in every if getattr(chosen, name)]


def given(
    chosen: Rewarding,
    tokens: Int[np.ndarray, "G C"],
    length: Int[np.ndarray, "G"],
    parts: Float[np.ndarray, "G R"],
    *,
    most: int,  # tokens of a completion
    right_above: float,  # where cosine takes the first function's reward for right
) -> Float[np.ndarray, "G K"]:
    """Of each sample, in the order of `names`; NaN: not to be said."""

    def row(tokens, n, parts):
        by_name = {
            "overlong": lambda: overlong(n, most, chosen.overlong),
            "repetition": lambda: repetition(tokens[:n].tolist(), chosen.repetition),
            "cosine": lambda: _of_first(chosen, n, parts[0], right_above),
        }
        some = not np.isnan(parts).all()
        return [by_name[name]() if some else NAN for name in names(chosen)]

    rows = [row(*one) for one in zip(tokens, length.tolist(), parts, strict=True)]
    return np.array(rows, float).reshape(len(rows), len(names(chosen)))


def _of_first(chosen: Rewarding, length: int, first: float, above: float) -> float:
    if math.isnan(first):
        return NAN
    ends = chosen.cosine_right if first > above else chosen.cosine_wrong
    return cosine(length, chosen.cosine, ends)
