"""One group: the rewards of G samples of one question become values to learn from.

Paper 4.1.2: Â_i = (r_i − mean(r)) / std(r). Each estimator replaces the subtracted
baseline or the whole comparison; `scale` then divides by a spread. All take one group
as `[G]`, with a mask of the samples that count, and are lifted by `vmap`. What is
compared need not be samples: process supervision passes all steps of a question.

Masked samples enter no statistic and get 0. A group whose rewards all agree (max equals
min: in float32 the mean of 64 times 0.7 is not 0.7) gets exactly 0 from every estimator
centred on its group; what the others give stands in their docstrings.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grpo_jax import algorithm, config


class Group(NamedTuple):
    """What the estimators may look at."""

    reward: Float[Array, "G"]
    is_valid: Bool[Array, "G"]
    length: Int[Array, "G"]  # completion tokens
    baseline: Float[Array, ""]  # an estimate from outside the group


def mean(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """r_i − mean(r): GRPO, Dr. GRPO and most others."""
    return group.reward - _mean(group.reward, group.is_valid)


def leave_one_out(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """r_i − mean of the others (RLOO), which is G/(G−1) times `mean`."""
    n = group.is_valid.sum()
    return mean(group, settings) * n / jnp.maximum(n - 1, 1)


def length_weighted(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """r_i − Σ n_j r_j / Σ n_j with lengths n (OPO)."""
    n = jnp.where(group.is_valid, group.length, 0)
    return group.reward - (n * group.reward).sum() / jnp.maximum(n.sum(), 1)


def given(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """r_i − b, where b is the greedy answer's reward (ReMax). Agreeing: r − b."""
    return group.reward - group.baseline


def none(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """r_i itself (REINFORCE++, which whitens later). Agreeing rewards: r."""
    return group.reward


def best_minus_second(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """The best sample gets best − second, the others 0: the gradient of pass@k."""
    reward = jnp.where(group.is_valid, group.reward, -jnp.inf)
    best = jnp.argmax(reward)
    is_best = jnp.arange(reward.size) == best
    second = jnp.max(jnp.where(is_best, -jnp.inf, reward))
    return jnp.where(is_best, reward[best] - second, 0.0)


def rank(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """Centred ranks, from −1/2 to 1/2; ties share the mean of their ranks."""
    ours, others = group.reward[:, None], group.reward[None, :]
    counts = group.is_valid[None, :]
    below = (counts & (others < ours)).sum(-1)
    equal = (counts & (others == ours)).sum(-1)
    n = group.is_valid.sum()
    ranks = below + (equal - 1) / 2
    return (ranks - (n - 1) / 2).astype(group.reward.dtype) / jnp.maximum(n - 1, 1)


def max_rl(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """(r_i − mean) / mean, and 0 where the mean is not positive."""
    centre = _mean(group.reward, group.is_valid)
    return jnp.where(centre > 0, mean(group, settings) / centre, 0.0)


def softmax(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """softmax(r/τ) over the group: weights of the log-likelihood. Agreeing: 1/G."""
    z = jnp.where(group.is_valid, group.reward / settings.reward_temperature, -jnp.inf)
    highest = jnp.max(z, initial=jnp.finfo(z.dtype).min)
    weight = jnp.exp(z - highest)
    return weight / jnp.maximum(weight.sum(), jnp.finfo(z.dtype).tiny)


def indicator(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """1 if the answer is right, else 0 (RFT, Online RFT) or −1. Agreeing: 1 or that."""
    is_right = group.reward > settings.correct_above
    return jnp.where(is_right, 1.0, settings.wrong_weight).astype(group.reward.dtype)


ESTIMATORS = {
    "mean": mean,
    "leave_one_out": leave_one_out,
    "length_weighted": length_weighted,
    "given": given,
    "none": none,
    "best_minus_second": best_minus_second,
    "rank": rank,
    "max_rl": max_rl,
    "softmax": softmax,
    "indicator": indicator,
}


def compare(group: Group, settings: config.Advantage) -> Float[Array, "G"]:
    """The chosen estimator, edge cases settled; not yet divided by a spread."""
    group = group._replace(reward=jnp.where(group.is_valid, group.reward, 0.0))
    value = ESTIMATORS[settings.estimator](group, settings)
    if settings.estimator in algorithm.CENTRED:
        is_single = group.is_valid.sum() == 1
        value = jnp.where(agree(group.reward, group.is_valid), 0.0, value)
        if settings.group_of_one == "raw":
            value = jnp.where(is_single, group.reward, value)
    return jnp.where(group.is_valid, value, 0.0)


def scale(
    value: Float[Array, "G"], group: Group, settings: config.Advantage
) -> Float[Array, "G"]:
    """Divides by the group's spread: its std, or for each sample the std of the others.

    A group of one has no spread; its std counts as 1.
    """
    reward, is_valid = group.reward, group.is_valid
    if settings.scale_rewards == "group":
        spread = std(reward, is_valid, settings.ddof)
    elif settings.scale_rewards == "others":
        without = is_valid[None, :] & ~jnp.eye(is_valid.size, dtype=bool)
        spread = jax.vmap(lambda others: std(reward, others, settings.ddof))(without)
    else:
        return value
    return divide(value, jnp.where(is_valid.sum() == 1, 1.0, spread), settings)


def divide(
    value: Float[Array, "*N"],
    spread: Float[Array, "*N"] | Float[Array, ""],
    settings: config.Advantage,
) -> Float[Array, "*N"]:
    """value / spread, with ε added to it, under it, or under the root.

    A spread of exactly 0 divides nothing: the group agrees (and is 0 already), or the
    others do where the std is theirs.
    """
    if settings.eps_at == "added":
        denominator = spread + settings.eps
    elif settings.eps_at == "floor":
        denominator = jnp.maximum(spread, settings.eps)
    else:
        denominator = jnp.sqrt(spread**2 + settings.eps)
    return value / jnp.where(spread == 0, 1.0, denominator)


def agree(x: Float[Array, "..."], where: Bool[Array, "..."]) -> Bool[Array, ""]:
    """True if all that count are the same number, or none counts."""
    low = jnp.min(x, where=where, initial=jnp.inf)
    return low >= jnp.max(x, where=where, initial=-jnp.inf)


def std(
    x: Float[Array, "..."], where: Bool[Array, "..."], ddof: int
) -> Float[Array, ""]:
    """Over what counts, in two passes; exactly 0 where it agrees."""
    deviation = jnp.where(where, x - _mean(x, where), 0.0)
    variance = (deviation**2).sum() / jnp.maximum(where.sum() - ddof, 1)
    return jnp.where(agree(x, where), 0.0, jnp.sqrt(variance))


def _mean(x: Float[Array, "..."], where: Bool[Array, "..."]) -> Float[Array, ""]:
    return jnp.where(where, x, 0.0).sum() / jnp.maximum(where.sum(), 1)
