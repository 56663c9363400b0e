"""How different the samples of a group are: one that says one thing teaches nothing.

On the host, over token ids or characters and over answers as text.
"""

import itertools
import math
from collections.abc import Sequence


def of_groups(
    completions: Sequence[Sequence[Sequence]],
    answers: Sequence[Sequence[str | None]],
    n: int,
) -> dict[str, float]:
    """Means over the groups of a batch; what a group of one cannot say is left out."""
    measures = {
        "diversity/distinct": [distinct(group) for group in completions],
        "diversity/ngrams": [distinct_ngrams(group, n) for group in completions],
        "diversity/agreement": [agreement(group) for group in answers],
    }
    return {name: _mean(values) for name, values in measures.items()}


def distinct(completions: Sequence[Sequence]) -> float:
    """Distinct completions over all: 1/G when all are the same, 1 when none are."""
    return len({tuple(c) for c in completions}) / len(completions)


def distinct_ngrams(completions: Sequence[Sequence], n: int) -> float:
    """Distinct n-grams over all n-grams of the group; NaN if there is none."""
    grams = [tuple(c[i : i + n]) for c in completions for i in range(len(c) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def agreement(answers: Sequence[str | None]) -> float:
    """The share of pairs with the same answer; NaN for a group of one.

    No answer (None) agrees with nothing, not even with another None.
    """
    pairs = list(itertools.combinations(answers, 2))
    same = sum(a == b and a is not None for a, b in pairs)
    return same / len(pairs) if pairs else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan
