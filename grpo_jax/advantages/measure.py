"""What to know of rewards and advantages while a run goes on."""

from grpo_jax.advantages import estimate
from grpo_jax.losses import statistics
from grpo_jax.records import Rewards


def measure(rewards: Rewards, estimated: estimate.Estimate) -> statistics.Statistics:
    """Spread of rewards and advantages, and how many groups and rows teach nothing.

    A group without spread (max equals min of what is compared) gives no gradient to a
    centred estimator.
    """
    is_valid, compared = estimated.is_valid, estimated.is_compared
    where = rewards.is_completion & is_valid[:, :, None]
    measured = {
        "reward": statistics.moments(estimated.reward, compared),
        "groups/no_spread": statistics.mean(estimated.agrees, compared.any(-1)),
        "rows/unscorable": statistics.mean(~is_valid, rewards.is_valid),
        "advantage": statistics.moments(estimated.advantage, where),
        "advantage_min": statistics.lowest(estimated.advantage, where),
        "advantage_max": statistics.highest(estimated.advantage, where),
        "length": statistics.moments(where.sum(-1).astype(float), is_valid),
    }
    if estimated.is_step is not None:
        asked = rewards.is_step & rewards.is_valid[:, :, None]
        measured["steps/left_out"] = statistics.mean(~estimated.is_step, asked)
    return measured
