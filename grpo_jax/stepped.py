"""The steps of groups and their rewards: as arrays, as numbers, and in a table.

A step that could not be scored is NaN here; `advantages.estimate` leaves it out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import dtypes
from jaxtyping import Float

from grpo_jax import crossing
from grpo_jax.rewards.stepwise import Stepped
from grpo_jax.sampling import shapes

Groups = Sequence[Sequence[Stepped | None]]  # None: that row was not drawn


def arrays(groups: Groups) -> dict[str, np.ndarray]:
    """The fields of `Rewards` that process supervision reads, [B, G, S].

    S is one of few numbers, the same for all processes: nothing compiles midway.
    """
    longest = max(len(one.ends) for group in groups for one in group if one is not None)
    (S,) = crossing.agreed(shapes.length(longest))
    shape = len(groups), len(groups[0]), S
    reward = np.zeros(shape, dtypes.canonicalize_dtype(float))
    end = np.zeros(shape, np.int32)
    is_step = np.zeros(shape, bool)
    for b, g in np.ndindex(shape[:2]):
        one = groups[b][g]
        if one is not None:
            own = b, g, slice(len(one.ends))
            reward[own], end[own], is_step[own] = one.reward, one.ends, True
    return {"step_reward": reward, "step_end": end, "is_step": is_step}


def numbers(groups: Groups) -> dict[str, float]:
    """Of all processes: how many steps a sample has, and what is known of a step."""
    drawn = [one for group in groups for one in group if one is not None]
    reward = np.concatenate([np.zeros(0), *(one.reward for one in drawn)])
    known = reward[~np.isnan(reward)]
    given = len(drawn), len(reward), len(known), known.sum()
    drawn, steps, scored, total = crossing.gathered(np.array([given], float)).sum(0)
    ratio = lambda a, b: float(a / b) if b else float("nan")  # noqa: E731
    return {
        "samples/steps": ratio(steps, drawn),
        "steps/reward": ratio(total, scored),
    }


def rows(one: Stepped, advantage: Float[np.ndarray, "C"]) -> list[dict[str, Any]]:
    """Of one sample's steps; within a step the advantage is the same everywhere."""
    told = zip(one.texts, one.ends.tolist(), one.reward.tolist(), strict=True)
    return [
        {
            "text": text,
            "end": end,
            "reward": None if reward != reward else reward,
            "advantage": float(advantage[end]),
        }
        for text, end, reward in told
    ]
