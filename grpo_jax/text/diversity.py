"""How different the samples of a group are: one that says one thing teaches nothing.

On the host, over token ids and over answers as text.
"""

import collections
import math
from collections.abc import Sequence

from grpo_jax.text import answers

NAMES = ("diversity/distinct", "diversity/bigrams", "diversity/agreement")


def of_group(
    completions: Sequence[Sequence], texts: Sequence[str]
) -> tuple[float, float, float]:
    """By NAMES; NaN where a group cannot say. An answer is final, or the last word."""
    said = [answers.final(text) or answers.last(text) for text in texts]
    return distinct(completions), distinct_ngrams(completions, 2), agreement(said)


def distinct(completions: Sequence[Sequence]) -> float:
    """Distinct completions over all: 1/G when all are the same, 1 when none are."""
    if not completions:
        return math.nan
    return len({tuple(c) for c in completions}) / len(completions)


def distinct_ngrams(completions: Sequence[Sequence], n: int) -> float:
    """Distinct n-grams over all n-grams of the group; NaN if there is none."""
    grams = [tuple(c[i : i + n]) for c in completions for i in range(len(c) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def agreement(said: Sequence[str | None]) -> float:
    """The share of pairs with the same answer; NaN for a group of one.

    No answer (None) agrees with nothing, not even with another None.
    """
    counts = collections.Counter(one for one in said if one is not None)
    same = sum(math.comb(count, 2) for count in counts.values())
    pairs = math.comb(len(said), 2)
    return same / pairs if pairs else math.nan
