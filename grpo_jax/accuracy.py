"""How often answers are right, and how sure one can be of that.

Of `n` answers to each question: pass@k, the chance that one of k is right, and maj@k,
the chance that the most frequent of k is. Both are expectations over all subsets of k,
without luck: the same answers give the same numbers.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Z = 1.959963984540054  # of 95 percent


class Interval(NamedTuple):
    value: float
    low: float
    high: float


def wilson(right: int, of: int) -> Interval:
    """A share with Wilson's 95 percent interval, good for few and for extreme ones."""
    share, spread = right / of, Z**2 / of
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def pass_at(k: int, right: int, of: int) -> float:
    """1 − C(n − c, k) / C(n, k), for c right of n answers to one question."""
    return 1.0 - math.comb(of - right, k) / math.comb(of, k)


def majority_at(
    k: int, answers: Sequence[Hashable | None], is_right: Callable[[Hashable], bool]
) -> float:
    """The chance that the most frequent of k of these answers is right.

    Where several are equally frequent each wins as often. None is no answer: it fills a
    place and never wins.
    """
    votes = Counter(answers)
    silent = votes.pop(None, 0)
    return sum(
        _wins(k, votes[answer], [n for x, n in votes.items() if x != answer], silent)
        for answer in votes
        if is_right(answer)
    ) / math.comb(len(answers), k)


def _wins(k: int, own: int, others: list[int], silent: int) -> float:
    """Subsets of k in which an answer given `own` times is the most frequent.

    With m of its own, each other answer has fewer, or as many and shares the victory:
    ways[s, t] counts those with s answers in all of which t share.
    """
    total = 0.0
    for m in range(1, min(own, k) + 1):
        ways = np.zeros((k - m + 1, len(others) + 1))
        for s in range(min(silent, k - m) + 1):
            ways[s, 0] = math.comb(silent, s)
        for n in others:
            after = np.zeros_like(ways)
            for j in range(min(n, m, k - m) + 1):
                shares = int(j == m)
                more = math.comb(n, j) * ways[: k - m + 1 - j, : ways.shape[1] - shares]
                after[j:, shares:] += more
            ways = after
        share = ways[k - m] / (1 + np.arange(ways.shape[1]))
        total += math.comb(own, m) * share.sum()
    return total


def bootstrap(
    of_questions: Float[np.ndarray, "N"], seed: int, draws: int = 1000
) -> Interval:
    """The mean, and the 95 percent interval of means over questions drawn again."""
    n = len(of_questions)
    bits = np.random.Philox(key=[seed, n]).random_raw((draws, n))
    means = of_questions[(bits % n).astype(int)].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(of_questions.mean()), float(low), float(high))


def mcnemar(a: Bool[np.ndarray, "N"], b: Bool[np.ndarray, "N"]) -> float:
    """How likely is it, were both equally good, that they differ so on the same items?

    Exact and two-sided: of the items that one alone gets right, half are each one's.
    """
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)


def auc(score: Float[np.ndarray, "N"], is_good: Bool[np.ndarray, "N"]) -> float:
    """The chance that a good one has a higher score than a bad one; a tie is half.

    The area under the ROC curve, by ranks. NaN if all are alike.
    """
    good = int(is_good.sum())
    bad = len(is_good) - good
    if not good or not bad:
        return float("nan")
    _, which, count = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2  # ranks from 1, shared by equal ones
    above = middle[which][is_good].sum() - good * (good + 1) / 2
    return float(above / (good * bad))


class Reliability(NamedTuple):
    """Of the predictions in each bin: how many, what they said, and what was so."""

    count: Int[np.ndarray, "bins"]
    said: Float[np.ndarray, "bins"]
    found: Float[np.ndarray, "bins"]

    @property
    def error(self) -> float:
        """The expected calibration error: |said − found|, weighed by how many."""
        gap = np.abs(self.said - self.found)
        return float((gap * self.count).sum() / max(self.count.sum(), 1))


def reliability(
    probability: Float[np.ndarray, "N"], is_good: Bool[np.ndarray, "N"], bins: int = 10
) -> Reliability:
    """Predictions in bins of equal width; an empty bin says and finds 0."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    some = np.maximum(count, 1)
    said = np.bincount(which, probability, bins) / some
    return Reliability(count, said, np.bincount(which, is_good, bins) / some)
