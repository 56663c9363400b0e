"""Losses that are a negative log-likelihood: of tokens (SFT, RFT) and of labels.

Tokens are weighted and summed like the policy's (losses/reduce), so SFT is the case of
weight 1 and RFT, online or not, the case of weight 1 for right answers and 0 for wrong
ones (paper eq. 6, 8, 10). Labels may be soft, as Math-Shepherd's are.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grpo_jax.losses import reduce
from grpo_jax.section import need_shape


def token_nll(
    logp: Float[Array, "B G C"],
    is_completion: Bool[Array, "B G C"],
    sample_weight: Float[Array, "B G"],
    row_weight: Float[Array, "B G"],
) -> Float[Array, ""]:
    """−Σ_i w_i s_i Σ_t log π(o_t): s is 1 (SFT) or the indicator (RFT)."""
    need_shape(is_completion.shape, logp=logp)
    need_shape(is_completion.shape[:2], sample_weight=sample_weight)
    x = -logp * sample_weight[:, :, None]
    return reduce.weighted_sum(x, is_completion, row_weight)


def binary(
    logit: Float[Array, "..."],
    label: Float[Array, "..."],
    is_labelled: Bool[Array, "..."],
    *,
    weight: float | Float[Array, ""],
) -> Float[Array, ""]:
    """−w Σ y log σ(z) + (1 − y) log σ(−z): one label per solution, or one per step.

    `weight` is 1 over the labels of the minibatch, known before it is cut.
    """
    need_shape(is_labelled.shape, logit=logit, label=label)
    logit = jnp.where(is_labelled, logit, 0.0)
    loss = -label * jax.nn.log_sigmoid(logit) - (1 - label) * jax.nn.log_sigmoid(-logit)
    return weight * jnp.where(is_labelled, loss, 0.0).sum()


def candidate_logit(plus: Float[Array, "..."], minus: Float[Array, "..."]) -> Array:
    """A step scored by two candidate tokens: a softmax of two is a sigmoid."""
    return plus - minus
