"""One token from logits: what may be drawn, the draw, and what is recorded of it.

The draw is the inverse of the cumulative distribution, in two stages: a block of the
vocabulary by one uniform number, a token within it by another. That costs one pass over
the vocabulary, needs two random numbers a row instead of one per token, and resolves
small probabilities better than one cumulative sum of the whole would.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from grpo_jax.sampling.settings import Sampling


class Rule(NamedTuple):
    """Which distribution is drawn from; None leaves a step of it out."""

    temperature: float | Float[Array, ""] | None  # None: the likeliest token
    top_k: int | Int[Array, ""] | None = None
    top_p: float | Float[Array, ""] | None = None
    min_p: float | Float[Array, ""] | None = None


class Drawn(NamedTuple):
    token: Int[Array, "*N"]
    logp: Float[Array, "*N"]  # of the distribution that was drawn from
    plain: Float[Array, "*N"]  # of softmax(logits), nothing changed; NaN: no numbers


def rule(settings: Sampling) -> Rule:
    top_p = None if settings.top_p == 1 else settings.top_p
    return Rule(settings.temperature or None, settings.top_k, top_p, settings.min_p)


def draw(
    logits: Float[Array, "*N V"],
    uniform: Float[Array, "*N 2"],
    rule: Rule,
    is_allowed: Bool[Array, "*#N V"],
) -> Drawn:
    """A token of each row, by two numbers in [0, 1) of its own."""
    possible = jnp.where(is_allowed, logits, -jnp.inf)
    top = possible.max(-1, keepdims=True)
    if rule.temperature is None:
        token = possible.argmax(-1)
        logp = jnp.zeros(token.shape, logits.dtype)
    else:
        weight = weights(logits, top, rule, is_allowed)
        token, total = _pick(weight, uniform)
        logp = (_at(logits, token) - top[..., 0]) / rule.temperature - jnp.log(total)
    plain = _at(logits, token) - jax.nn.logsumexp(logits, -1)
    return Drawn(token, logp, plain)


def repeatedly(
    logits: Float[Array, "V"], rule: Rule, key: Key[Array, ""], count: int
) -> Int[Array, "count"]:
    """Many tokens of one row: what its draws are tested with."""
    everything = jnp.ones(logits.shape, bool)
    uniform = jax.random.uniform(key, (count, 2))
    return jax.vmap(lambda u: draw(logits, u, rule, everything).token)(uniform)


def weights(logits: Array, top: Array, rule: Rule, is_allowed: Array) -> Array:
    """Unnormalised probabilities after all transformations; the largest is 1."""
    weight = jnp.exp((logits - top) / rule.temperature)
    weight = jnp.where(is_allowed, weight, 0.0)
    if rule.top_k is not None:
        weight = _keep(weight, lambda kept: (kept > 0).sum(-1) >= rule.top_k)
    if rule.top_p is not None:
        enough = rule.top_p * weight.sum(-1)
        weight = _keep(weight, lambda kept: kept.sum(-1) >= enough)
    if rule.min_p is not None:
        weight = jnp.where(weight >= rule.min_p, weight, 0.0)
    return weight


def _keep(weight: Array, is_enough) -> Array:
    """The fewest largest weights that are enough; equal ones stay or go together.

    Bisects for the least weight kept, over the bits of the number: positive floats are
    in the order of their bits, so 31 halvings find it exactly, and nothing is sorted.
    """
    bits = jax.lax.bitcast_convert_type(weight.astype(jnp.float32), jnp.int32)

    def halve(_, bounds):
        low, high = bounds  # enough with all from `low` on; not with all from `high` on
        middle = low + (high - low) // 2
        kept = jnp.where(bits >= middle[..., None], weight, 0.0)
        enough = is_enough(kept)
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros(weight.shape[:-1], jnp.int32)
    high = jnp.full(weight.shape[:-1], ONE_BITS + 1)
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return jnp.where(bits >= low[..., None], weight, 0.0)


ONE_BITS = 0x3F800000  # of 1.0, the largest weight


def _pick(weight: Array, uniform: Array) -> tuple[Array, Array]:
    """A token by its weight, and the sum of all weights."""
    blocks = _in_blocks(weight)
    sums = blocks.sum(-1)
    cumulative = jnp.cumsum(sums, -1)
    total = cumulative[..., -1]
    block = _first_above(cumulative, uniform[..., 0] * total, sums)
    inside = jnp.take_along_axis(blocks, block[..., None, None], -2)[..., 0, :]
    cumulative = jnp.cumsum(inside, -1)
    token = _first_above(cumulative, uniform[..., 1] * cumulative[..., -1], inside)
    return block * blocks.shape[-1] + token, total


def _first_above(cumulative: Array, bar: Array, weight: Array) -> Array:
    """The first with its cumulative sum above the bar; never one of weight 0.

    Sums that are computed in parallel may fall where nothing was added, so weights are
    looked at as well; and where rounding leaves nothing above, the last one is it.
    """
    places = jnp.arange(weight.shape[-1])
    places = jnp.broadcast_to(places, weight.shape)
    is_hit = (cumulative > bar[..., None]) & (weight > 0)
    first = jnp.where(is_hit, places, weight.shape[-1]).min(-1)
    last = jnp.where(weight > 0, places, 0).max(-1)
    return jnp.minimum(first, last)


def _in_blocks(weight: Array) -> Array:
    """[..., V] → [..., blocks, width], both near √V."""
    size = weight.shape[-1]
    width = 1 << math.ceil(math.log2(size) / 2)
    padding = [(0, 0)] * (weight.ndim - 1) + [(0, -size % width)]
    padded = jnp.pad(weight, padding)
    return padded.reshape(*weight.shape[:-1], -1, width)


def _at(logits: Array, token: Array) -> Array:
    return jnp.take_along_axis(logits, token[..., None], -1)[..., 0]
