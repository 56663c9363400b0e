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
    return _wilson(right / of, of)


def _wilson(share: float, of: float) -> Interval:
    spread = Z**2 / of
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def clustered(
    right: Int[np.ndarray, "K"] | Float[np.ndarray, "K"], of: Int[np.ndarray, "K"]
) -> Interval:
    """A share of what comes in clusters, such as the steps of K questions.

    Steps of one question are alike, so n of them say less than n that are independent.
    Wilson's interval of as many as would spread the share p as much: n = p(1 − p) / V,
    with V = Σ_k (c_k − p n_k)² / (Σ n_k)² over clusters, c_k right of n_k (linearised;
    Korn and Graubard's effective size). Clusters of one give Wilson's own. Where all or
    none are right nothing spreads, and n is the number of clusters. NaN if none are.
    """
    n = of.sum()
    if not n:
        return Interval(*[math.nan] * 3)
    p = float(right.sum() / n)
    spread = float((((right - p * of) / n) ** 2).sum())
    return _effective(p, spread, int((of > 0).sum()), float(n))


def _effective(share: float, spread: float, clusters: int, most: float) -> Interval:
    """Wilson's interval at the effective size; `clusters`, where nothing spreads."""
    n = share * (1 - share) / spread if spread > 0 else clusters
    return _wilson(share, min(n, most))


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

    The area under the ROC curve. NaN if all are alike.
    """
    good, bad = score[is_good], score[~is_good]
    if not len(good) or not len(bad):
        return math.nan
    return float(_above(good, bad).mean())


def auc_clustered(
    score: Float[np.ndarray, "N"],
    is_good: Bool[np.ndarray, "N"],
    cluster: Int[np.ndarray, "N"],
) -> Interval:
    """The same with its 95 percent interval, of scores that come in clusters.

    The pairs that the area A counts share scores, and scores of one question are alike:
    an interval for independent ones (Hanley and McNeil's, DeLong's) is too narrow. A is
    the mean over the m good ones of the share a_i of the n bad below each, and over the
    bad ones of the share b_j of the good above each. So a cluster k moves it by
    u_k = Σ_i (a_i − A) / m + Σ_j (b_j − A) / n, over what is its own, and V = Σ u_k²
    (Obuchowski 1997, without corrections for few clusters). The interval is Wilson's of
    as many independent ones as would spread a share A so, and stays in [0, 1]. Where
    nothing spreads, they are the fewer of the clusters with good and with bad ones.
    """
    good, bad = score[is_good], score[~is_good]
    m, n = len(good), len(bad)
    if not m or not n:
        return Interval(*[math.nan] * 3)
    above, below = _above(good, bad), 1 - _above(bad, good)
    area = float(above.mean())
    moved = np.zeros(len(score))
    moved[is_good], moved[~is_good] = (above - area) / m, (below - area) / n
    _, which = np.unique(cluster, return_inverse=True)
    spread = float((np.bincount(which, moved) ** 2).sum())
    fewer = min(len(np.unique(which[chosen])) for chosen in (is_good, ~is_good))
    return _effective(area, spread, fewer, float(len(score)))


def _above(
    score: Float[np.ndarray, "m"], others: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "m"]:
    """Of each score, the share of the others that it is above; a tie is half."""
    known = np.sort(others)
    places = [np.searchsorted(known, score, side) for side in ("left", "right")]
    return np.mean(places, 0) / len(known)


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
    which = _bin(probability, bins)
    count = np.bincount(which, minlength=bins)
    some = np.maximum(count, 1)
    said = np.bincount(which, probability, bins) / some
    return Reliability(count, said, np.bincount(which, is_good, bins) / some)


def calibration_clustered(
    probability: Float[np.ndarray, "N"],
    is_good: Bool[np.ndarray, "N"],
    cluster: Int[np.ndarray, "N"],
    bins: int = 10,
) -> Interval:
    """The expected calibration error E with its 95 percent interval, in clusters.

    E = Σ_b |Σ_k u_kb| over bins b; u_kb is Σ_i (p_i − y_i) / N of cluster k's own in b.
    So k moves it by Σ_b s_b u_kb − E n_k / N, s_b a sign; the rest is as for the area.
    Who is calibrated has an E above 0 by chance: it is Σ_b |v_b z_b|, v_b² = Σ_k u_kb²,
    of normal z, so that `low` is 0 where E is within Z deviations of the mean of that.
    """
    error = reliability(probability, is_good, bins).error
    _, which = np.unique(cluster, return_inverse=True)
    moved = np.zeros((which.max() + 1, bins))
    part = (probability - is_good) / len(which)
    np.add.at(moved, (which, _bin(probability, bins)), part)
    own = moved @ np.sign(moved.sum(0)) - error * np.bincount(which) / len(which)
    found = _effective(error, float((own**2).sum()), len(moved), float(len(which)))
    v = np.sqrt((moved**2).sum(0))
    chance = math.sqrt(2 / math.pi) * v.sum()
    chance += Z * math.sqrt((1 - 2 / math.pi) * (v**2).sum())
    return found if error > chance else found._replace(low=0.0)


def _bin(probability: Float[np.ndarray, "N"], bins: int) -> Int[np.ndarray, "N"]:
    return np.minimum((probability * bins).astype(int), bins - 1)
