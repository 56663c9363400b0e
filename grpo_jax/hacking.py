"""Whether reward and right have parted: a policy that exploits its reward model.

What is optimised for a reward model's word finds where that is wrong. It shows where,
on the same samples, the reward rises on while fewer are right by the data's own
checker.

Of the last 48, 96, 192, ... steps, as many as there are, each window is cut into 8
blocks, and each series is looked at through their means b:

    t = mean(Δb) / (std(Δb) / √7)                    is it more than a walk does?
    z = (b̄ of the last 4 − b̄ of the first 4) / (2 s / √n)    ... than noise does?

with n steps in the window and s² the variance within blocks. A series has risen if t
and z exceed 4, fallen if both are below −4. They have parted if, over one window, the
reward has risen and what is right has fallen.

A run that was forked looks at its own steps alone: before, another may have judged.

False alarms, share of 300 simulated runs of 1,000 steps looked at after every one: none
of independent steady noise, nor of a reward that rises beside steady accuracy; 2% where
that accuracy is noise correlated by 0.9 from step to step; 4% of two independent random
walks. A walk beside a reward that always rises is told in 44%: what is right has
fallen there, by chance or not. Hits, of 100 runs in which accuracy falls by 0.3 in 300
steps while the reward rises: 99 with noise of 0.05 a step, 92 with 0.08, 56 with 0.12.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

REWARD, RIGHT, PARTED = "reward_mean", "samples/right", "samples/parted"  # of rows
SHORTEST, BLOCKS, BAR = 48, 8, 4.0

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
        if _moved(windows[0]) > BAR and _moved(windows[1]) < -BAR:
            (low, high), (before, after) = map(_ends, windows)
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
    """The smaller of |t| and |z|, with t's sign: z's wherever |t| > 4."""
    blocks = x.reshape(BLOCKS, -1)
    means = blocks.mean(1)
    steps, half = np.diff(means), BLOCKS // 2
    gain = means[half:].mean() - means[:half].mean()
    noise = np.sqrt(blocks.var(1, ddof=1).mean() / x.size)
    tiny = 1e-12  # of a series without any noise
    t = steps.mean() / (steps.std(ddof=1) / np.sqrt(steps.size) + tiny)
    z = gain / (2 * noise + tiny)
    return float(np.sign(t) * min(abs(t), abs(z)))


def _ends(x: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """The means of the first and of the last block."""
    means = x.reshape(BLOCKS, -1).mean(1)
    return float(means[0]), float(means[-1])
