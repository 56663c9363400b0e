"""The advantages of a batch as its settings ask for them: rewards in, [B, G, C] out.

    parts ─ weighted sum ─► reward ─ − β·KL ─► compare ─► scale ─► spread ─► whiten
             (GDPO: compare and scale each part, then add)          over tokens

A sample without a finite reward is unscorable, and so is one that lacks a reward which
others of its question have: it enters no statistic and gets 0. In process supervision
that is one without a step that has a reward; any other step without is no step, and its
tokens get the values of those behind it.
With the KL in the reward, outputs that are compared lose β·Σ_t KL_t before the
comparison, while gae and none lose β·KL_t at every token (paper eq. 2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grpo_jax import config
from grpo_jax.advantages import group, tokens
from grpo_jax.records import Rewards, check_shapes
from grpo_jax.section import Refused


class Estimate(NamedTuple):
    """The advantages, and what they were made of, for `measure`."""

    advantage: Float[Array, "B G C"]
    is_valid: Bool[Array, "B G"]  # the rows that a reward could be given
    reward: Float[Array, "B N"]  # what was compared: outputs, or all their steps
    is_compared: Bool[Array, "B N"]
    agrees: Bool[Array, "B"]  # whether all that a question is compared with is the same
    is_step: Bool[Array, "B G S"] | None = None  # the steps that count
    returns: Float[Array, "B G C"] | None = None  # for a critic to predict; gae only


def estimate(
    settings: config.Algorithm, rewards: Rewards, *, beta: float | Float[Array, ""]
) -> Estimate:
    """Advantages of every completion token; 0 on all other places.

    β weighs the KL in the reward. It is given apart, because it may be steered.
    """
    chosen = settings.advantage
    check_shapes(rewards)
    _check_inputs(settings, rewards)
    reward, is_valid = total_reward(chosen, rewards)
    compared, returns, is_step = (reward, is_valid), None, None
    if chosen.supervision == "process":
        compared = _pool_of_steps(rewards)
        is_step = compared[1].reshape(rewards.is_step.shape)
        is_valid = is_step.any(-1)
    counts = rewards.is_completion & is_valid[:, :, None]
    penalty = jnp.zeros(counts.shape, reward.dtype)
    if settings.kl.placed == "reward":
        penalty = beta * jnp.where(counts, rewards.kl, 0.0)
    if chosen.supervision == "process":
        advantage = _of_steps(chosen, rewards, *compared)
    elif chosen.estimator == "gae":
        advantage, returns = _of_critic(chosen, rewards, reward, penalty)
    elif chosen.estimator == "none":
        row = jax.vmap(jax.vmap(tokens.token_rewards))(reward, penalty, counts)
        over_time = jax.vmap(jax.vmap(tokens.returns, (0, 0, None)), (0, 0, None))
        advantage = over_time(row, counts, chosen.gamma)
    else:
        value = _of_outputs(chosen, rewards, reward - penalty.sum(-1), is_valid)
        if chosen.whiten == "rows":
            value = tokens.whiten(value, is_valid, chosen)
        advantage = _over_tokens(value, counts, chosen.gamma)
    advantage = jnp.where(counts, advantage, 0.0)
    if chosen.whiten == "tokens":
        advantage = tokens.whiten(advantage, counts, chosen)
    agrees = _agreement(chosen, rewards, *compared)
    return Estimate(advantage, is_valid, *compared, agrees, is_step, returns)


def total_reward(
    chosen: config.Advantage, rewards: Rewards
) -> tuple[Float[Array, "B G"], Bool[Array, "B G"]]:
    """Σ w_k r_k over the parts that are finite, and which rows are scorable and valid.

    A part that no sample of a question has does not apply to it. A sample that lacks
    one which others have is unscorable: a sum without it would be compared with sums
    that hold it. GDPO compares part by part, and leaves out what is missing alone.
    """
    weight = _weights(chosen, rewards)
    is_known = jnp.isfinite(rewards.parts)
    total = (weight * jnp.where(is_known, rewards.parts, 0.0)).sum(-1)
    if chosen.supervision == "process":
        return total, rewards.is_valid
    is_scored = is_known.any(-1)
    if not chosen.normalise_each:
        applies = (is_known & rewards.is_valid[:, :, None]).any(1, keepdims=True)
        is_scored &= (is_known | ~applies).all(-1)
    return total, rewards.is_valid & is_scored


def _weights(chosen: config.Advantage, rewards: Rewards) -> Float[Array, "1 1 R"]:
    count = rewards.parts.shape[-1]
    weights = chosen.reward_weights or (1.0,) * count
    if len(weights) != count:
        raise Refused(
            f"{chosen.dotted('reward_weights')} has {len(weights)} values; there are "
            f"{count} reward functions. Give one weight for each."
        )
    return jnp.stack([jnp.asarray(w, rewards.parts.dtype) for w in weights])[None, None]


def _of_outputs(
    chosen: config.Advantage,
    rewards: Rewards,
    reward: Float[Array, "B G"],
    is_valid: Bool[Array, "B G"],
) -> Float[Array, "B G"]:
    """One value per output: of its total reward, or (GDPO) summed over the parts."""
    length = rewards.is_completion.sum(-1)

    def value(reward, is_valid):
        return _compare_and_scale(chosen, rewards, reward, is_valid, length)

    if not chosen.normalise_each:
        return value(reward, is_valid)
    by_part = jax.vmap(lambda r: value(r, is_valid & jnp.isfinite(r)), -1, -1)
    return (_weights(chosen, rewards) * by_part(rewards.parts)).sum(-1)


def _pool_of_steps(
    rewards: Rewards,
) -> tuple[Float[Array, "B N"], Bool[Array, "B N"]]:
    """Process supervision: all steps of all outputs to a question are one group.

    A step with a reward that is not finite, or an end that is no token of the row, is
    no step.
    """
    reward, end, length = rewards.step_reward, rewards.step_end, rewards.is_completion
    is_step = rewards.is_step & rewards.is_valid[:, :, None] & jnp.isfinite(reward)
    is_step &= (end >= 0) & (end < length.shape[-1])
    inside = jnp.clip(end, 0, length.shape[-1] - 1)
    is_step &= jnp.take_along_axis(length, inside, -1)
    return reward.reshape(len(reward), -1), is_step.reshape(len(reward), -1)


def _of_steps(
    chosen: config.Advantage,
    rewards: Rewards,
    reward: Float[Array, "B N"],
    is_step: Bool[Array, "B N"],
) -> Float[Array, "B G C"]:
    """Each token gets the sum of the values of the steps that end at or after it."""
    value = _compare_and_scale(
        chosen, rewards, reward, is_step, jnp.ones(reward.shape, int)
    )
    end = rewards.step_end
    by_row = jax.vmap(jax.vmap(tokens.from_steps))
    value, is_step = (x.reshape(end.shape) for x in (value, is_step))
    return by_row(value, end, is_step, rewards.is_completion)


def _of_critic(
    chosen: config.Advantage,
    rewards: Rewards,
    reward: Float[Array, "B G"],
    penalty: Float[Array, "B G C"],
) -> tuple[Float[Array, "B G C"], Float[Array, "B G C"]]:
    """PPO: token rewards of eq. 2, and generalized advantage estimation."""

    def row(reward, penalty, value, is_completion):
        reward = tokens.token_rewards(reward, penalty, is_completion)
        knobs = chosen.gamma, chosen.gae_lambda
        return tokens.generalized_advantage(reward, value, is_completion, *knobs)

    by_row = jax.vmap(jax.vmap(row))
    return by_row(reward, penalty, rewards.value, rewards.is_completion)


def _compare_and_scale(
    chosen: config.Advantage,
    rewards: Rewards,
    reward: Float[Array, "B N"],
    is_valid: Bool[Array, "B N"],
    length: Int[Array, "B N"],
) -> Float[Array, "B N"]:
    """The estimator on every group, divided by the spread that the settings name."""

    def one(group_):
        return group.scale(group.compare(group_, chosen), group_, chosen)

    value = _by_group(one, chosen, rewards, reward, is_valid, length)
    if chosen.scale_rewards == "batch":
        spread = group.std(reward, is_valid, chosen.ddof)
        value = group.divide(value, spread, chosen)
    elif chosen.scale_rewards == "nonzero":
        nonzero = (is_valid & (reward != 0)).sum()
        value = value * is_valid.sum() / jnp.maximum(nonzero, 1)
    return value


def _agreement(
    chosen: config.Advantage,
    rewards: Rewards,
    reward: Float[Array, "B N"],
    is_valid: Bool[Array, "B N"],
) -> Bool[Array, "B"]:
    def one(group_):
        agrees = group.agree(group_.reward, group_.is_valid)
        return jnp.full(group_.reward.shape, agrees)

    unread = jnp.zeros(reward.shape, int)  # the lengths
    return _by_group(one, chosen, rewards, reward, is_valid, unread)[:, 0]


def _by_group(one, chosen: config.Advantage, rewards: Rewards, *compared) -> Array:
    """A function of one group, on each: a question, or all that share a column."""
    shape = compared[0].shape
    baseline = rewards.baseline
    if baseline is None:
        baseline = jnp.zeros(shape[0], compared[0].dtype)
    groups = group.Group(*compared, baseline)
    if chosen.group_by == "question":
        return jax.vmap(one)(groups)
    return _pooled(one, groups, rewards.columns[chosen.group_by])


def _pooled(one, groups: group.Group, column: Int[Array, "B"]) -> Array:
    """Groups that share a column's value are one group."""
    shape = groups.reward.shape
    everyone = group.Group(*(x.reshape(-1) for x in groups[:3]), groups.baseline[0])
    key = jnp.repeat(column, shape[1])

    def of_question(b):
        value = one(everyone._replace(is_valid=everyone.is_valid & (key == column[b])))
        return value.reshape(shape)[b]

    return jax.vmap(of_question)(jnp.arange(shape[0]))


def _over_tokens(
    value: Float[Array, "B G"], counts: Bool[Array, "B G C"], gamma: float | Array
) -> Float[Array, "B G C"]:
    """value · γ^(completion tokens still to come): the same everywhere if γ is 1."""

    def constant():  # a million powers take five times as long as the loss
        return jnp.broadcast_to(value[:, :, None], counts.shape)

    def discounted():
        to_come = jnp.flip(jnp.cumsum(jnp.flip(counts, -1), -1), -1) - 1
        decay = gamma ** jnp.arange(counts.shape[-1])
        return constant() * decay[jnp.maximum(to_come, 0)].astype(value.dtype)

    return jax.lax.cond(jnp.asarray(gamma == 1), constant, discounted)


def _check_inputs(settings: config.Algorithm, rewards: Rewards):
    """Which optional records the settings call for; known before anything compiles."""
    chosen = settings.advantage
    steps = chosen.supervision == "process", "supervision 'process'"
    needed = {
        "step_reward": steps,
        "step_end": steps,
        "is_step": steps,
        "baseline": (chosen.estimator == "given", "estimator 'given'"),
        "value": (chosen.estimator == "gae", "estimator 'gae', which needs a critic,"),
        "kl": (settings.kl.placed == "reward", "algorithm.kl.placed 'reward'"),
        "columns": (chosen.group_by != "question", "group_by"),
    }
    for name, (is_needed, reader) in needed.items():
        if is_needed and getattr(rewards, name) is None:
            raise Refused(
                f"the rewards carry no {name}, which {reader} reads. "
                f"Fill Rewards.{name}, or choose another."
            )
    if chosen.group_by != "question" and chosen.group_by not in rewards.columns:
        raise Refused(
            f"{chosen.dotted('group_by')} is {chosen.group_by!r}; the data has "
            f"{sorted(rewards.columns)}. Name one of them, or 'question'."
        )
