"""The critic's loss (PPO)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grpo_jax.losses import statistics
from grpo_jax.section import need_shape


def value_loss(
    value: Float[Array, "B G C"],
    old_value: Float[Array, "B G C"],
    returns: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
    *,
    clip: float | Array,
    token_weight: float | Float[Array, ""],
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """½ Σ w max((V − R)², (V_clip − R)²), V_clip within ± clip of the old value.

    `token_weight` is w, 1 over the tokens of the minibatch, known before it is cut.
    Where the clipped error is the larger one, no gradient is left.
    """
    shape = is_completion.shape
    need_shape(shape, value=value, old_value=old_value, returns=returns)

    def blank(x):
        return jnp.where(is_completion, x, 0.0)

    value, old_value, returns = blank(value), blank(old_value), blank(returns)
    free = (value - returns) ** 2
    held = (jnp.clip(value, old_value - clip, old_value + clip) - returns) ** 2
    loss = 0.5 * token_weight * jnp.maximum(free, held).sum()
    return loss, {
        "value/clipped": statistics.mean(held > free, is_completion),
        "value/error": statistics.mean(free, is_completion),
    }
