"""What to know of rewards and advantages while a run goes on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grpo_jax.advantages import group
from grpo_jax.losses import statistics
from grpo_jax.records import Rewards


def measure(
    rewards: Rewards,
    reward: Float[Array, "B G"],
    is_valid: Bool[Array, "B G"],
    advantage: Float[Array, "B G C"],
) -> statistics.Statistics:
    """Spread of rewards and advantages, and how many groups and rows teach nothing.

    A group without spread (max equals min) gives no gradient to a centred estimator.
    """
    is_group = is_valid.any(-1)
    agrees = jax.vmap(group.agree)(reward, is_valid)
    is_known = jnp.isfinite(rewards.parts).any(-1)
    where = rewards.is_completion & is_valid[:, :, None]
    return {
        "reward": statistics.moments(reward, is_valid),
        "groups/no_spread": statistics.mean(agrees, is_group),
        "rows/unscorable": statistics.mean(~is_known, rewards.is_valid),
        "advantage": statistics.moments(advantage, where),
        "advantage_min": statistics.lowest(advantage, where),
        "advantage_max": statistics.highest(advantage, where),
        "length": statistics.moments(where.sum(-1).astype(float), is_valid),
    }
