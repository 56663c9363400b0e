"""How many samples each question of a batch gets, of a fixed number in all.

A question whose answers are right at rate p has rewards of variance p(1 − p). With n
samples, compared with their own mean, what it says of the gradient has a variance
proportional to p(1 − p)/(n − 1), and the batch, in which all questions count alike, the
sum of these. Under Σ n = N that sum is smallest where one sample more would help every
question alike, n − 1 ∝ √(p(1 − p)) (Neyman's allocation). So samples go one by one to
the question that gains most, p(1 − p)/((n − 1) n): to those that the policy sometimes
answers, and not to those that it always or never does.

p is not known. What is expected of p(1 − p) under a Beta distribution is, whose counts
are the question's own rewards, older ones for half of the newer, and beside them two
samples' worth of what questions are like in general.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

PRIOR = 2.0  # samples
DECAY = 0.5  # of what was seen, each time that a question comes back
Seen = list[float]  # samples, and the sum of their rewards, as JSON has them


def spread(seen: Sequence[Seen | None], overall: Seen) -> Float[np.ndarray, "B"]:
    """E[p(1 − p)] of each question; None: it was never asked."""
    rate = (overall[1] + 1) / (overall[0] + 2)
    counts = np.array([one or [0.0, 0.0] for one in seen])
    right = PRIOR * rate + counts[:, 1]
    wrong = PRIOR * (1 - rate) + counts[:, 0] - counts[:, 1]
    n = right + wrong
    return right * wrong / (n * (n + 1))


def allot(
    variance: Float[np.ndarray, "B"], total: int, least: int, most: int
) -> Int[np.ndarray, "B"]:
    """Samples of each question: at least, at most, and so many in all.

    Of two that would gain alike, the one with fewer samples is served, then the first.
    """
    n = np.full(len(variance), least)
    for _ in range(total - n.sum()):
        gain = np.where(n < most, variance / (np.maximum(n - 1, 0.5) * n), -1.0)
        n[np.lexsort((n, -gain))[0]] += 1
    return n


def after(seen: Seen | None, rewards: Float[np.ndarray, "n"]) -> Seen:
    """What is known of a question once more samples of it have rewards in [0, 1]."""
    count, total = seen or [0.0, 0.0]
    known = rewards[np.isfinite(rewards)]
    total = DECAY * total + float(np.clip(known, 0, 1).sum())
    return [DECAY * count + len(known), total]
