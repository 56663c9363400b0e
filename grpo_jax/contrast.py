"""One method against another over seeds: paired, with an interval and an exact test.

Two arms that share a seed share its order of questions and, where they ask as many at a
time, its draws; so what counts is the difference within each seed. Everything here is
conditional on what all seeds share: the model that they begin with, and the questions
that are asked in the end.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from grpo_jax.section import Refused


class Contrast(NamedTuple):
    """By how much the one is above the other, on average over seeds."""

    mean: float
    low: float  # 95%, by Student's t
    high: float
    p: float  # of both sides, over all ways to flip the differences' signs
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def paired(ours: Float[np.ndarray, "S"], theirs: Float[np.ndarray, "S"]) -> Contrast:
    """Of the same seeds in the same order, two at least."""
    difference = ours - theirs
    seeds = len(difference)
    if seeds < 2:
        raise Refused(f"{seeds} seeds say nothing of how seeds differ. Give more.")
    unknown = np.flatnonzero(~np.isfinite(difference)).tolist()
    if unknown:
        raise Refused(f"of seeds {unknown} there is no difference. Leave them out.")
    mean = float(difference.mean())
    error = difference.std(ddof=1) / seeds**0.5
    half = float(scipy.stats.t.ppf(0.975, seeds - 1) * error)
    return Contrast(mean, mean - half, mean + half, flipped(difference), seeds)


def flipped(difference: Float[np.ndarray, "S"]) -> float:
    """The share of all 2^S choices of signs whose sum is as far from 0 as this one.

    If neither arm were better, each sign would be as likely as its opposite. S seeds
    cannot give less than 2^(1 − S): .0625 of five, .0078 of eight.
    """
    seeds = len(difference)
    if seeds > 20:
        raise Refused(f"{seeds} seeds have 2^{seeds} choices of signs. 20 at most.")
    sums = np.zeros(1)
    for one in difference:
        sums = np.concatenate([sums + one, sums - one])
    far = abs(difference.sum())
    return float(np.mean(abs(sums) >= far - 1e-9 * abs(difference).sum()))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p values of comparisons named beforehand, corrected for how many there are.

    The smallest of m counts m times, the next m − 1 times, ..., and none less than one
    before it.
    """
    names = sorted(p, key=p.__getitem__)
    found, largest = {}, 0.0
    for i, name in enumerate(names):
        largest = max(largest, min(1.0, (len(names) - i) * p[name]))
        found[name] = largest
    return {name: found[name] for name in p}
