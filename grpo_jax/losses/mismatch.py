"""Sampler and trainer compute the same policy and disagree: weights and rejection.

The sampler's log-probabilities come from other kernels, another precision or a cut
distribution (top-p). With log w = log π_old − log π_sampler, `weights` makes the loss
unbiased for the policy that really sampled, and `accepted` removes what cannot be
mended. Both depend on nothing that is being trained, so they are computed once for a
minibatch; what is rejected leaves its denominators as well.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grpo_jax import config
from grpo_jax.losses import statistics

LOG_LIMIT = 20.0  # e^20 is finite in float32, and so is a row's product of ratios


def weights(
    settings: config.Correction,
    old_logp: Float[Array, "B G C"],
    sampler_logp: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
) -> tuple[Float[Array, "B G C"], statistics.Statistics]:
    """w of each token, or of its whole row; 0 outside the mask.

    The statistics are of the weights before they are normalised. Without a lower bound
    `below` counts what is as far below as the upper bound is above.
    """
    raw = ratio(settings, old_logp, sampler_logp, is_completion)
    if settings.mode == "truncate":
        weight = jnp.clip(raw, *_bounds(settings))
    else:
        weight = jnp.where(_inside(raw, settings), raw, 0.0)
    weight = jnp.where(is_completion, weight, 0.0)
    unit = _units(settings, is_completion)
    low, high = _bounds(settings)
    if settings.low is None:
        low = 1 / high
    mean_weight = statistics.mean(weight, unit)
    measured = {
        "mismatch/weight": statistics.moments(weight, is_completion),
        "mismatch/weight_min": statistics.lowest(weight, is_completion),
        "mismatch/weight_max": statistics.highest(weight, is_completion),
        "mismatch/normaliser": mean_weight,
        "mismatch/ratio_min": statistics.lowest(raw, unit),
        "mismatch/ratio_max": statistics.highest(raw, unit),
        "mismatch/below": statistics.mean(raw < low, unit),
        "mismatch/above": statistics.mean(raw > high, unit),
        "mismatch/outside": statistics.mean(~_inside(raw, settings), is_completion),
    }
    if settings.normalise:
        mean = mean_weight.total / jnp.maximum(mean_weight.count, 1)
        weight = weight / jnp.where(mean > 0, mean, 1.0)
    return weight, measured


def ratio(
    settings: config.Correction,
    old_logp: Float[Array, "B G C"],
    sampler_logp: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
) -> Float[Array, "B G C"]:
    """π_old/π_sampler of the token, or the product over its row."""
    log_ratio = _log_ratio(old_logp, sampler_logp, is_completion)
    if settings.level == "sequence":
        total = log_ratio.sum(-1, keepdims=True)
        log_ratio = jnp.broadcast_to(total, log_ratio.shape)
    return jnp.exp(jnp.clip(log_ratio, -LOG_LIMIT, LOG_LIMIT))


def accepted(
    settings: config.Rejection,
    old_logp: Float[Array, "B G C"],
    sampler_logp: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
) -> Bool[Array, "B G C"]:
    """The completion tokens that stay. Of a rejected row none does.

    Bounds hold for the ratio π_old/π_sampler (in a row: of the product, of its
    geometric mean, or of every token) or for k2 or k3 of it.
    """
    if settings.statistic == "none":
        return is_completion
    log_ratio = _log_ratio(old_logp, sampler_logp, is_completion)
    measure = {
        "ratio": log_ratio,
        "k2": log_ratio**2 / 2,
        "k3": jnp.expm1(log_ratio) - log_ratio,
    }[settings.measure]
    n = jnp.maximum(is_completion.sum(-1, keepdims=True), 1)
    if settings.statistic == "sequence_sum":
        measure = measure.sum(-1, keepdims=True)
    elif settings.statistic == "sequence_mean":
        measure = measure.sum(-1, keepdims=True) / n
    if settings.measure == "ratio":
        measure = jnp.exp(jnp.clip(measure, -LOG_LIMIT, LOG_LIMIT))
    inside = _inside(measure, settings)
    if settings.statistic == "sequence_max":
        inside = (inside | ~is_completion).all(-1, keepdims=True)
    return is_completion & inside


def disagreement(
    old_logp: Float[Array, "B G C"],
    sampler_logp: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
) -> statistics.Statistics:
    """How far apart the two are: KL of the sampler from the trainer, χ², perplexity.

    Perplexities are of rows; a row without tokens is not counted.
    """
    log_ratio = _log_ratio(old_logp, sampler_logp, is_completion)
    n = is_completion.sum(-1)
    is_row = n > 0

    def row_mean(x):
        return jnp.nansum(jnp.where(is_completion, x, 0.0), -1) / jnp.maximum(n, 1)

    trainer, sampler = -row_mean(old_logp), -row_mean(sampler_logp)
    k3 = jnp.expm1(log_ratio) - log_ratio
    product = jnp.exp(2 * jnp.clip(log_ratio.sum(-1), -LOG_LIMIT, LOG_LIMIT))
    return {
        "mismatch/unknown": statistics.mean(jnp.isnan(sampler_logp), is_completion),
        "mismatch/kl": statistics.mean(-log_ratio, is_completion),
        "mismatch/k3": statistics.mean(k3, is_completion),
        "mismatch/log_gap_max": statistics.highest(jnp.abs(log_ratio), is_completion),
        "mismatch/chi2_token": statistics.mean(
            jnp.exp(2 * log_ratio) - 1, is_completion
        ),
        "mismatch/chi2_row": statistics.mean(product - 1, is_row),
        "mismatch/log_perplexity_trainer": statistics.mean(trainer, is_row),
        "mismatch/log_perplexity_sampler": statistics.mean(sampler, is_row),
        "mismatch/perplexity_trainer": statistics.mean(jnp.exp(trainer), is_row),
        "mismatch/perplexity_sampler": statistics.mean(jnp.exp(sampler), is_row),
        "mismatch/perplexity_ratio": statistics.mean(
            jnp.exp(trainer - sampler), is_row
        ),
        "mismatch/log_perplexity_gap": statistics.mean(
            jnp.abs(trainer - sampler), is_row
        ),
        "mismatch/log_perplexity_gap_max": statistics.highest(
            trainer - sampler, is_row
        ),
        "mismatch/log_perplexity_gap_min": statistics.lowest(trainer - sampler, is_row),
    }


def _log_ratio(old_logp, sampler_logp, is_completion):
    """log π_old − log π_sampler, finite; 0 outside the mask and where it is unknown."""
    log_ratio = jnp.where(is_completion, old_logp - sampler_logp, 0.0)
    log_ratio = jnp.where(jnp.isnan(log_ratio), 0.0, log_ratio)
    return jnp.clip(log_ratio, -LOG_LIMIT, LOG_LIMIT)


def _bounds(settings: config.Correction | config.Rejection):
    low = 0.0 if settings.low is None else settings.low
    return low, jnp.inf if settings.high is None else settings.high


def _inside(x, settings: config.Correction | config.Rejection):
    low, high = _bounds(settings)
    return (x >= low) & (x <= high)


def _units(settings, is_completion):
    """The places where a weight is counted: every token, or the first of each row."""
    if settings.level == "token":
        return is_completion
    return is_completion & (jnp.cumsum(is_completion, -1) == 1)
