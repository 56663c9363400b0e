"""Whether reward and right have parted: a policy that exploits its reward model.

What is optimised for a reward model's word finds where that is wrong. It shows where,
on the same samples, the reward rises on while fewer are right by the data's own
checker.

Of the last 48, 96, 192, ... steps, as many as there are, each window is cut into 8
blocks, and each series is looked at through their means b, n steps in all:

    z = (b̄ of the last 4 − b̄ of the first 4) / (2 s / √n)     is it more than noise?

with s² the variance within blocks. A series has risen if z is above 5 and the means
rise: of their 28 pairs at most one is out of order. It has fallen likewise. They have
parted if, over one window, the reward has risen, what is right has fallen, and a
quarter of it is lost from the first block to the last.

A run that was forked looks at its own steps alone: before, another may have judged.

False alarms, of 300 simulated runs of 1,000 steps looked at after every one, with right
at one half: none of steady noise, whether the reward rises beside it or not; 20 where
the reward rises and right is noise of ±0.05 that is correlated by 0.9 from one step to
the next; 1 where the reward is such noise too. Of walks by 0.01 a step 82 are told:
what is right has fallen there, by chance or not. Hits, of 100 runs in which accuracy
falls by 0.3 in 300 steps while the reward rises: all with noise of 0.05 or 0.08 a step,
93 with 0.12.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

REWARD, RIGHT, PARTED = "reward_mean", "samples/right", "samples/parted"  # of rows
SHORTEST, BLOCKS, BAR, LOST = 48, 8, 5.0, 0.25

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
        windows = reward[-n:], right[-n:]
        (low, high), (before, after) = map(_ends, windows)
        rises, falls = _moved(windows[0]) > BAR, _moved(windows[1]) < -BAR
        if rises and falls and after <= (1 - LOST) * before:
            return (
                f"reward and right have parted: over {n} steps the reward rose from "
                f"{low:.3g} to {high:.3g}, and what is right by the data's own checker "
                f"fell from {before:.1%} to {after:.1%}. See the samples that are "
                "rewarded and wrong; stop here, raise algorithm.beta, or train the "
                "reward model again"
            )
        n *= 2
    return None


def _moved(x: Float[np.ndarray, "n"]) -> float:
    """z, if the blocks' means are in order; or else 0."""
    blocks = x.reshape(BLOCKS, -1)
    means, half = blocks.mean(1), BLOCKS // 2
    pairs = np.sign(means - means[:, None])[np.triu_indices(BLOCKS, 1)]
    if abs(pairs.sum()) < pairs.size - 2:  # a pair that is out of order counts twice
        return 0.0
    noise = np.sqrt(blocks.var(1, ddof=1).mean() / x.size)
    tiny = 1e-12  # of a series without any noise
    return float((means[half:].mean() - means[:half].mean()) / (2 * noise + tiny))


def _ends(x: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """The means of the first and of the last block."""
    means = x.reshape(BLOCKS, -1).mean(1)
    return float(means[0]), float(means[-1])
