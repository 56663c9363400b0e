"""From a scored rollout to what the loss needs, before anything is differentiated.

`rollout` runs once per rollout: advantages, rejection, the sampler's correction.
`minibatch` runs before each update, on one optimizer step: denominators, and tokens
selected by comparing them with all others. What comes out can be cut into
micro-batches and shards anywhere; the pieces' losses add up.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from grpo_jax import config
from grpo_jax.advantages import estimate, measure
from grpo_jax.losses import kl, mismatch, reduce, select, statistics
from grpo_jax.records import PolicyBatch, Rewards
from grpo_jax.section import Refused


class Scores(NamedTuple):
    """Log-probabilities of the rollout's tokens; None where no setting needs them."""

    logp: Float[Array, "B G C"] | None  # by the trainer's policy, before any update
    ref_logp: Float[Array, "B G C"] | None
    sampler_logp: Float[Array, "B G C"] | None  # as the sampler recorded them


def needs_reference(settings: config.Algorithm) -> bool:
    """Whether the reference policy must score the rollout; for concrete settings."""
    in_reward = settings.kl.placed == "reward"
    return settings.beta > 0 or in_reward or settings.ratio_to == "reference"


def rollout(
    settings: config.Algorithm,
    rewards: Rewards,
    scores: Scores,
    is_row: Bool[Array, "B G"],
    *,
    beta: float | Float[Array, ""],
) -> tuple[PolicyBatch, statistics.Statistics]:
    """The batch without its denominators, and statistics of the rollout."""
    _check_scores(settings, scores)
    rewards = rewards._replace(is_valid=rewards.is_valid & is_row)
    if settings.kl.placed == "reward":
        one = jnp.ones_like(scores.logp)
        divergence = kl.estimate(settings.kl, scores.logp, scores.ref_logp, one)
        rewards = rewards._replace(kl=divergence)
    advantage = estimate.estimate(settings, rewards, beta=beta).advantage
    reward, is_valid = estimate.total_reward(settings.advantage, rewards)
    measured = measure.measure(rewards, reward, is_valid, advantage)
    mask = rewards.is_completion & is_valid[:, :, None]
    weight = None
    if scores.sampler_logp is not None and scores.logp is not None:
        pair = scores.logp, scores.sampler_logp
        kept = mismatch.accepted(settings.rejection, *pair, mask)
        measured["mismatch/rejected"] = statistics.mean(~kept, mask)
        measured |= mismatch.disagreement(*pair, mask)
        if settings.correction.level != "none":
            weight, more = mismatch.weights(settings.correction, *pair, kept)
            measured |= more
        mask = kept
    batch = PolicyBatch(
        is_completion=mask,
        advantage=advantage,
        is_row=is_row,
        old_logp=scores.logp,
        ref_logp=scores.ref_logp,
        weight=weight,
    )
    return batch, measured


def minibatch(
    settings: config.Algorithm,
    batch: PolicyBatch,
    logp: Float[Array, "B G C"],
    entropy: Float[Array, "B G C"] | None,
    keys: Key[Array, "B G"] | None,
    *,
    rollout_tokens: int | Int[Array, ""],
    parts: int,
) -> PolicyBatch:
    """The batch of one update, from the policy as it is before that update.

    `parts` minibatches make up the rollout and its tokens; `keys` are of the rows,
    and only clip_cov draws with them.
    """
    mask = batch.is_completion
    chosen, is_uncertain, is_selected = mask, None, None
    if settings.top_entropy is not None:
        chosen = is_uncertain = select.uncertain(settings, entropy, mask)
    if settings.surrogate == "kl_cov":
        is_selected = select.covariant(settings, logp, batch.advantage, mask)
    elif settings.surrogate == "clip_cov":
        old_logp = logp if batch.old_logp is None else batch.old_logp
        is_selected = select.covariant_at_random(
            settings, logp, old_logp, batch.advantage, mask, keys
        )
    return batch._replace(
        row_weight=reduce.row_weights(
            settings, mask, batch.is_row, rollout_tokens=rollout_tokens, parts=parts
        ),
        is_selected=is_selected,
        is_uncertain=is_uncertain,
        entropy_weight=1 / jnp.maximum(chosen.sum(), 1),
    )


def _check_scores(settings: config.Algorithm, scores: Scores):
    """What the settings call for and the scores lack, known before compiling."""
    corrects = settings.correction.level != "none"
    rejects = settings.rejection.statistic != "none"
    in_reward = settings.kl.placed == "reward"
    needs = {
        "sampler_logp": corrects or rejects,
        "logp": corrects or rejects or in_reward,
        "ref_logp": in_reward or settings.ratio_to == "reference",
    }
    for name, is_needed in needs.items():
        if is_needed and getattr(scores, name) is None:
            raise Refused(
                f"the scores carry no {name}, which algorithm.correction, rejection, "
                f"kl.placed 'reward' or ratio_to 'reference' reads. Fill Scores.{name}."
            )
