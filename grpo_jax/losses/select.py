"""Tokens chosen by comparing them with the whole minibatch, once, before its update.

A quantile or a top-k over a batch depends on how the batch is cut. So these run over
the minibatch without gradient, and the masks they return are cut along with it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from grpo_jax import config, prng


def uncertain(
    settings: config.Algorithm,
    entropy: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
) -> Bool[Array, "B G C"]:
    """The share `top_entropy` of the completion tokens with the highest entropy.

    All those at or above the (1 − share) quantile, interpolated linearly.
    """
    where = jnp.where(is_completion, entropy, jnp.nan)
    threshold = jnp.nanquantile(where, 1 - settings.top_entropy)
    return is_completion & (entropy >= threshold)


def covariant(
    settings: config.Algorithm,
    logp: Float[Array, "B G C"],
    advantage: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
) -> Bool[Array, "B G C"]:
    """KL-Cov: the share `cov_fraction` with the largest covariance, at least one."""
    covariance = _covariance(logp, advantage, is_completion)
    priority = jnp.where(is_completion, -covariance, jnp.inf)
    return is_completion & _lowest(priority, settings.cov_fraction, is_completion)


def covariant_at_random(
    settings: config.Algorithm,
    logp: Float[Array, "B G C"],
    old_logp: Float[Array, "B G C"],
    advantage: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
    keys: Key[Array, "B G"],
) -> Bool[Array, "B G C"]:
    """Clip-Cov: of the tokens with a covariance in (cov_low, cov_high) that the clip
    leaves alone, as many as the share `cov_fraction` of all, drawn at random.

    The draw of a token is a function of its row's key and its position.
    """
    covariance = _covariance(logp, advantage, is_completion)
    ratio = jnp.exp(logp - old_logp)
    is_low = (ratio < 1 - settings.clip_low) & (advantage < 0)
    is_high = (ratio > 1 + settings.clip_high) & (advantage > 0)
    inside = (covariance > settings.cov_low) & (covariance < settings.cov_high)
    eligible = is_completion & inside & ~is_low & ~is_high
    draws = prng.token_uniforms(keys, logp.shape[-1])
    priority = jnp.where(eligible, draws, jnp.inf)
    return eligible & _lowest(priority, settings.cov_fraction, is_completion)


def _covariance(logp, advantage, is_completion):
    """(A − mean A)(log π − mean log π), means over completion tokens alone."""
    n = jnp.maximum(is_completion.sum(), 1)

    def centred(x):
        return x - jnp.where(is_completion, x, 0.0).sum() / n

    return centred(advantage) * centred(logp)


def _lowest(priority, fraction, is_completion):
    """The max(1, ⌊fraction · tokens⌋) places of lowest priority."""
    count = jnp.maximum((is_completion.sum() * fraction).astype(int), 1)
    rank = jnp.argsort(jnp.argsort(priority, axis=None)).reshape(priority.shape)
    return rank < count
