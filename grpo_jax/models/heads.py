"""Heads on the same trunk: a score per token (reward, value), a step's judgement."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec

Params = dict[str, Array]


def init_scalar(spec: Spec, key: Key[Array, ""]) -> Params:
    """A linear map from hidden state to one number."""
    weight = jax.random.normal(key, (spec.width,)) / spec.width**0.5
    return {"weight": weight, "bias": jnp.zeros(())}


def trunk(params: transformer.Params) -> transformer.Params:
    """What a head stands on: nothing says a token there, so no unembedding is held."""
    return {name: x for name, x in params.items() if name != "unembed"}


def scalar(head: Params, hidden: Float[Array, "*N D"]) -> Float[Array, "*N"]:
    """The critic's value or the reward model's score at each token, in float32."""
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)
    weight = head["weight"].astype(dtype)
    with jax.default_matmul_precision("highest"):
        return jnp.einsum("...d,d->...", hidden.astype(dtype), weight) + head["bias"]


def judgement(
    spec: Spec,
    params: transformer.Params,
    hidden: Float[Array, "*N D"],
    good: int,
    bad: int,
    numerics: Numerics = Numerics(),
) -> tuple[Float[Array, "*N"], Float[Array, "*N"]]:
    """Logits of two tokens that judge a step: a process reward model, no new weights.

    P(good) is σ of their difference. Only two rows of the vocabulary are computed.
    """
    name = spec.unembedding
    rows = params | {name: params[name][jnp.array([good, bad])]}
    logits = transformer.unembed(spec, rows, hidden, numerics)
    return logits[..., 0], logits[..., 1]
