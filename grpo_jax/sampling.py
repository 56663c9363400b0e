"""Completions, token by token: pure functions over [B, G, ·] that know no tokenizer.

`step` takes one token more of every row to its logits, and into the cache; `draw` draws
a token of each row, with a key of its own. Questions come first, as a prefix:
`transformer.prefill`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec


def step(
    spec: Spec,
    params: transformer.Params,
    prefix: transformer.Segment,
    cache: transformer.Segment,
    token: Int[Array, "B G"],
    position: Int[Array, "B G"],
    column: Int[Array, ""],
    numerics: Numerics = Numerics(),
) -> tuple[Float[Array, "B G V"], transformer.Segment]:
    """Logits of what follows the token, which is written to the cache's column."""
    token, position = token[:, :, None], position[:, :, None]
    hidden, own = transformer.forward(
        spec,
        params,
        token,
        position,
        jnp.ones(token.shape, bool),
        prefix,
        cache,
        numerics,
    )
    logits = transformer.unembed(spec, params, hidden[:, :, 0], numerics)
    return logits, transformer.write(cache, own, column)


def draw(
    logits: Float[Array, "B G V"],
    key: Key[Array, "B G"],
    position: Int[Array, ""],
    temperature: float | Float[Array, ""],
    top_p: float | Float[Array, ""],
) -> Int[Array, "B G"]:
    """A token of each row, by the row's key and the position; the best one at T = 0."""

    def one(logits, key):
        warm = nucleus(logits / jnp.maximum(temperature, 1e-6), top_p)
        return jax.random.categorical(jax.random.fold_in(key, position), warm)

    drawn = jax.vmap(jax.vmap(one))(logits, key)
    return jnp.where(temperature > 0, drawn, logits.argmax(-1))


def nucleus(
    logits: Float[Array, "V"], top_p: float | Float[Array, ""]
) -> Float[Array, "V"]:
    """The fewest likeliest tokens whose probabilities reach p; −∞ for all others."""
    chance = jax.nn.softmax(logits)
    falling = -jnp.sort(-chance)
    before = jnp.cumsum(falling) - falling
    least = jnp.min(falling, where=before < top_p, initial=jnp.inf)
    # Rounded sums reach 1 too early: a share of 1 is everything.
    return jnp.where((chance >= least) | (top_p >= 1), logits, -jnp.inf)
