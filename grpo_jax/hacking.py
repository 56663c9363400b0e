"""Whether reward and right have parted: a policy that exploits its reward model.

What is optimised for a reward model's word finds where that is wrong. It shows where,
on the same samples, the reward rises on while fewer are right by the data's own
checker.

Of the last 48, 96, 192, ... steps, as many as there are, each window is cut into 8
blocks, and each series is looked at through their means b, n steps in all:

    z of halves  = (b̄ of the last 4 − b̄ of the first 4) / (2 s / √n)
    z of blocks  = (b − b') / (s √(16 / n))                 is it more than noise?

with s² the variance within blocks. Over one window, they have parted if either

- it fades: the reward has risen and what is right has fallen, which is to say that z of
  halves is above 5 and the means are in order: of their 28 pairs at most one is not;
  and of the first block's right a quarter is lost, and at least 0.05; or
- it collapses: the best block of right stands above both of the last two, with a z of
  blocks above 5 to either, two fifths and at least 0.2 of it are lost; and the last
  block's reward is above that of the best one, with a z above 3.

A run that was forked looks back as far as rewards were given as they are now.

False alarms, of 300 simulated runs of 1,000 steps looked at after every one: none of
steady noise around one half, whether the reward rises beside it or not; and where what
is right moves by chance, correlated by 0.9 from one step to the next, beside a rising
reward, 20 with 0.5 ± 0.05 and 110 with 0.2 ± 0.05. Of walks by 0.01 a step 118: what is
right has fallen there, by chance or not. Hits, of 100 runs in which what is right falls
by 0.3 in 300 steps while the reward rises: all with noise of 0.05 or 0.08 a step, 93
with 0.12; and all of 100 that lose nine tenths in 160 steps, at most of them half.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

REWARD, RIGHT, PARTED = "reward_mean", "samples/right", "samples/parted"  # of rows
SHORTEST, BLOCKS = 48, 8
BAR, RISEN = 5.0, 3.0  # of z
FADED, COLLAPSED = (0.25, 0.05), (0.4, 0.2)  # the share that is lost, and how much

Row = dict[str, Any]


def look(before: Sequence[Row], row: Row) -> tuple[dict[str, float], str | None]:
    """What a row says besides, by those before it, 1 or 0; and a warning where this
    begins: where none of the last 48 said 1."""
    if RIGHT not in row:
        return {}, None
    told = parted([*before, row])
    recent = [one.get(PARTED) for one in before[-SHORTEST:]]
    return {PARTED: float(told is not None)}, None if 1.0 in recent else told


def past(rows: Iterable[Row], first: int) -> list[Row]:
    """What a run looks back at, of its own rows behind step `first`."""
    return [read(row) for row in rows if row["step"] > first]


def read(row: Row) -> Row:
    """Of a row what is looked at."""
    return {k: row.get(k) for k in ("stage", REWARD, RIGHT, PARTED)}


def parted(rows: Sequence[Row]) -> str | None:
    """What has happened, if they have parted by the last of these rows of metrics."""
    found = []
    for row in reversed(rows):
        if row["stage"] != rows[-1]["stage"]:
            break
        pair = row.get(REWARD), row.get(RIGHT)
        if None not in pair and not np.isnan(pair).any():
            found.append(pair)
    reward, right = np.array(found[::-1], float).reshape(-1, 2).T
    n = SHORTEST
    while n <= len(reward):
        windows = _Window.of(reward[-n:]), _Window.of(right[-n:])
        since = _since(*windows)
        if since is not None:
            (low, before), (high, after) = (
                [one.means[at] for one in windows] for at in (since, -1)
            )
            return (
                f"reward and right have parted: within {n} steps the reward rose from "
                f"{low:.3g} to {high:.3g}, and what is right by the data's own checker "
                f"fell from {before:.1%} to {after:.1%}. See the samples that are "
                "rewarded and wrong; stop here, raise algorithm.beta, or train the "
                "reward model again"
            )
        n *= 2
    return None


class _Window(NamedTuple):
    """A series, by its blocks' means."""

    means: Float[np.ndarray, "8"]
    noise: float  # s
    size: int  # n

    @classmethod
    def of(cls, x: Float[np.ndarray, "n"]) -> "_Window":
        blocks = x.reshape(BLOCKS, -1)
        tiny = 1e-12  # of a series without any noise
        noise = float(np.sqrt(blocks.var(1, ddof=1).mean())) + tiny
        return cls(blocks.mean(1), noise, x.size)

    def moved(self) -> float:
        """z of halves, if the means are in order; or else 0."""
        means, half = self.means, BLOCKS // 2
        pairs = np.sign(means - means[:, None])[np.triu_indices(BLOCKS, 1)]
        if abs(pairs.sum()) < pairs.size - 2:  # one that is out of order counts twice
            return 0.0
        apart = means[half:].mean() - means[:half].mean()
        return float(apart / (2 * self.noise / np.sqrt(self.size)))

    def apart(self, a: int, b: int) -> float:
        """z of blocks: how far a is above b."""
        noise = self.noise * np.sqrt(2 * BLOCKS / self.size)
        return float((self.means[a] - self.means[b]) / noise)


def _since(reward: _Window, right: _Window) -> int | None:
    """The block since which they part; None: they do not."""
    fades = reward.moved() > BAR and right.moved() < -BAR
    if fades and _is_lost(right, 0, -1, FADED):
        return 0
    best = int(right.means[:-2].argmax())
    is_lost = all(_is_lost(right, best, at, COLLAPSED) for at in (-2, -1))
    falls = min(right.apart(best, at) for at in (-2, -1)) > BAR
    return best if is_lost and falls and reward.apart(-1, best) > RISEN else None


def _is_lost(right: _Window, a: int, b: int, lost: tuple[float, float]) -> bool:
    """From block a to block b."""
    share, least = lost
    before, after = right.means[[a, b]]
    return bool(after <= (1 - share) * before and before - after >= least)
