"""From a scored rollout to what the loss needs, before anything is differentiated.

`rollout` runs once per rollout: advantages, rejection, the sampler's correction.
`minibatch` runs before each update, on one optimizer step: denominators, and tokens
selected by comparing them with all others. What comes out can be cut into
micro-batches and shards anywhere; the pieces' losses add up.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from grpo_jax import config, tree
from grpo_jax.advantages import estimate, measure
from grpo_jax.losses import kl, mismatch, reduce, select, statistics
from grpo_jax.records import PolicyBatch, Rewards, check_shapes, compared_with
from grpo_jax.section import Refused, need_shape


class Scores(NamedTuple):
    """Log-probabilities of the rollout's tokens; None where no setting needs them."""

    logp: Float[Array, "B G C"] | None  # by the trainer's policy, before any update
    ref_logp: Float[Array, "B G C"] | None
    sampler_logp: Float[Array, "B G C"] | None  # as the sampler recorded them


def rollout(
    settings: config.Algorithm,
    rewards: Rewards,
    scores: Scores,
    is_row: Bool[Array, "B G"],
    *,
    beta: float | Float[Array, ""],
) -> tuple[PolicyBatch, statistics.Statistics]:
    """The batch without its denominators, and statistics of the rollout."""
    check_shapes(rewards, scores)
    _check_scores(settings, scores)
    rewards = rewards._replace(is_valid=rewards.is_valid & is_row)
    if settings.kl.placed == "reward":
        one = jnp.ones_like(scores.logp)
        divergence = kl.estimate(settings.kl, scores.logp, scores.ref_logp, one)
        rewards = rewards._replace(kl=divergence)
    estimated = estimate.estimate(settings, rewards, beta=beta)
    measured = measure.measure(rewards, estimated)
    mask = rewards.is_completion & estimated.is_valid[:, :, None]
    if settings.kl.placed == "reward":
        measured["kl"] = statistics.mean(divergence, mask)
    weight = None
    if scores.sampler_logp is not None and scores.logp is not None:
        pair = scores.logp, scores.sampler_logp
        kept = mismatch.accepted(settings.rejection, *pair, mask)
        measured["mismatch/rejected"] = statistics.mean(~kept, mask)
        measured |= mismatch.disagreement(*pair, mask)
        if settings.correction.level != "none":
            # Of all that was sampled: a row's weight holds for its rejected tokens too.
            weight, more = mismatch.weights(settings.correction, *pair, mask)
            measured |= more
        mask = kept
    # Without scores of before, the loss itself can say how far the sampler was off.
    is_read = settings.off_policy_limit is not None or scores.logp is None
    batch = PolicyBatch(
        is_completion=mask,
        advantage=estimated.advantage,
        is_row=is_row,
        old_logp=scores.logp,
        ref_logp=scores.ref_logp,
        weight=weight,
        sampler_logp=scores.sampler_logp if is_read else None,
        old_value=rewards.value,
        returns=estimated.returns,
    )
    return batch, measured


def minibatch(
    settings: config.Algorithm,
    batch: PolicyBatch,
    logp: Float[Array, "B G C"] | None,
    entropy: Float[Array, "B G C"] | None,
    keys: Key[Array, "B G"] | None,
    *,
    rollout_tokens: int | Int[Array, ""],
    parts: int,
) -> PolicyBatch:
    """The batch of one update, from the policy as it is before that update.

    `parts` minibatches make up the rollout, whose tokens are those that `rollout` left
    in is_completion. Scores of now are for what `settings.selects`; `keys` are of the
    rows, and only clip_cov draws with them.
    """
    mask = batch.is_completion
    _check_minibatch(settings, batch, logp, entropy, keys, parts)
    chosen, is_uncertain, is_selected = mask, None, None
    if settings.top_entropy is not None:
        chosen = is_uncertain = select.uncertain(settings, entropy, mask)
    if settings.surrogate == "kl_cov":
        is_selected = select.covariant(settings, logp, batch.advantage, mask)
    elif settings.surrogate == "clip_cov":
        below = compared_with(settings, batch)
        old_logp = logp if below is None else below
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
        value_weight=None if batch.returns is None else 1 / jnp.maximum(mask.sum(), 1),
    )


def _check_scores(settings: config.Algorithm, scores: Scores):
    """What the settings call for and the scores lack, known before compiling."""
    corrects = settings.correction.level != "none"
    rejects = settings.rejection.statistic != "none"
    in_reward = settings.kl.placed == "reward"
    in_loss = not in_reward and not tree.is_zero(settings.beta)
    drifts = settings.off_policy_limit is not None and scores.sampler_logp is None
    needs = {
        "sampler_logp": {"correction.level": corrects, "rejection.statistic": rejects},
        "logp": {
            "correction.level": corrects,
            "rejection.statistic": rejects,
            "kl.placed": in_reward,
            "mu": settings.mu > 1,
            "minibatches": settings.minibatches > 1,
            "off_policy_limit": drifts,
        },
        "ref_logp": {
            "kl.placed": in_reward,
            "beta": in_loss,
            "ratio_to": settings.ratio_to == "reference",
        },
    }
    for name, readers in needs.items():
        asking = [f"algorithm.{field}" for field, reads in readers.items() if reads]
        if asking and getattr(scores, name) is None:
            raise Refused(
                f"the scores carry no {name}, which {' and '.join(asking)} as set "
                f"cannot do without. Fill Scores.{name}."
            )


def _check_minibatch(settings, batch: PolicyBatch, logp, entropy, keys, parts):
    shape = batch.is_completion.shape
    covaries = settings.surrogate in ("kl_cov", "clip_cov")
    needs = {
        "logp": (logp, covaries, f"surrogate {settings.surrogate!r}"),
        "entropy": (entropy, settings.top_entropy is not None, "top_entropy"),
        "keys": (keys, settings.surrogate == "clip_cov", "surrogate 'clip_cov'"),
        "batch.old_logp": (batch.old_logp, parts > 1, "a rollout in several parts"),
    }
    for name, (x, is_needed, reader) in needs.items():
        if is_needed and x is None:
            raise Refused(f"{name} is not given, which {reader} reads. Give it.")
    for name, x in (("logp", logp), ("entropy", entropy)):
        if x is not None:
            need_shape(shape, **{name: x})
    if keys is not None:
        need_shape(shape[:2], keys=keys)
