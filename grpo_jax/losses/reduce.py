"""From losses of tokens to one number: every mean, named by its denominator.

Each is a sum over tokens in which a token of row i counts w_i, and w follows from the
numbers of tokens alone. So the weights of a whole minibatch are fixed before its first
micro-batch is computed, and its loss is the plain sum of the losses of any parts it is
cut into, on any mesh:

    loss = Σ_i Σ_t w_i x_it      summed over the tokens that the mask keeps

Rows that only fill up a shape (is_row False) have no weight and are never counted.
`parts` is the number of minibatches a rollout is split into; it matters only where a
denominator belongs to the rollout.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grpo_jax import config


def mean_per_sequence(count, rows, settings, **scope):
    """w_i = 1 / (n_i · rows): the paper's 1/G Σ_i 1/|o_i| Σ_t, over all questions."""
    return 1 / (jnp.maximum(count, 1) * rows)


def mean_per_token(count, rows, settings, **scope):
    """w = 1 / Σ n of the minibatch (TRL's bnpo, verl's token-mean)."""
    return jnp.full(count.shape, 1 / jnp.maximum(count.sum(), 1))


def mean_per_rollout_token(count, rows, settings, *, rollout_tokens, parts, **scope):
    """w = parts / Σ n of the rollout (DAPO): equal tokens, whatever the minibatch."""
    return jnp.full(count.shape, parts / jnp.maximum(rollout_tokens, 1))


def mean_per_question(count, rows, settings, *, questions, **scope):
    """w_i = 1 / (Σ n of its question · questions): ScaleRL's mean over prompts."""
    tokens = jnp.maximum(count.sum(-1, keepdims=True), 1)
    return jnp.broadcast_to(1 / (tokens * questions), count.shape)


def sum_per_sequence(count, rows, settings, **scope):
    """w = 1 / rows (LUSPO): long rows weigh more."""
    return jnp.full(count.shape, 1 / rows)


def sum_over_constant(count, rows, settings, **scope):
    """w = 1 / (rows · L) with L tokens a row could have had (Dr. GRPO)."""
    return jnp.full(count.shape, 1 / (rows * settings.loss_constant))


def total(count, rows, settings, **scope):
    """w = 1: the plain sum."""
    return jnp.ones(count.shape)


REDUCTIONS = {
    "per_sequence": mean_per_sequence,
    "per_token": mean_per_token,
    "per_rollout_token": mean_per_rollout_token,
    "per_question": mean_per_question,
    "per_sequence_sum": sum_per_sequence,
    "over_constant": sum_over_constant,
    "sum": total,
}


def row_weights(
    settings: config.Algorithm,
    is_completion: Bool[Array, "B G C"],
    is_row: Bool[Array, "B G"],
    *,
    rollout_tokens: int | Int[Array, ""],
    parts: int,
) -> Float[Array, "B G"]:
    """What one token of each row counts in the loss of this minibatch.

    An empty row (no token left: zero length, filtered, or rejected) is counted among
    the rows or dropped from them, as `empty_rows` says; with per_question, a question
    whose rows are all empty.
    """
    count = jnp.where(is_row, is_completion.sum(-1), 0)
    counted = is_row if settings.empty_rows == "counted" else count > 0
    weight = REDUCTIONS[settings.loss_mean](
        count,
        jnp.maximum(counted.sum(), 1),
        settings,
        questions=jnp.maximum(counted.any(-1).sum(), 1),
        rollout_tokens=rollout_tokens,
        parts=parts,
    )
    return jnp.where(count > 0, weight, 0.0)


def weighted_sum(
    x: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
    row_weight: Float[Array, "B G"],
) -> Float[Array, ""]:
    """Σ w x over the mask. Selects, so that NaN in padding cannot spread."""
    x = jnp.where(is_completion, x, 0.0)
    return (x.sum(-1) * row_weight.astype(x.dtype)).sum()
