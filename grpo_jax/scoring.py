"""Log-probabilities and entropies of completions, a few tokens' logits at a time.

A question is computed once for its group: all of it but its last token becomes a
prefix, and every row begins with that last token, so that C inputs give the C
predictions of a completion. Hidden states become logits in chunks over tokens, which
the backward pass recomputes: `[B, G, C, V]`, the largest tensor there could be, never
exists.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec


class Texts(NamedTuple):
    """Questions, padded on the left, and their completions, padded on the right."""

    question: Int[Array, "B P"]
    is_question: Bool[Array, "B P"]  # False: padding
    completion: Int[Array, "B G C"]
    is_completion: Bool[Array, "B G C"]


class Scores(NamedTuple):
    logp: Float[Array, "B G C"]
    entropy: Float[Array, "B G C"] | None


def log_probs(
    spec: Spec,
    params: transformer.Params,
    texts: Texts,
    temperature: float | Float[Array, ""],
    numerics: Numerics = Numerics(),
    *,
    with_entropy: bool = False,
) -> Scores:
    """log π(o_t | q, o_<t) of softmax(logits / T), and that distribution's entropy."""
    hidden = states(spec, params, texts, numerics)
    return of_states(
        spec,
        params,
        hidden,
        texts.completion,
        temperature,
        numerics,
        with_entropy=with_entropy,
    )


def states(
    spec: Spec,
    params: transformer.Params,
    texts: Texts,
    numerics: Numerics = Numerics(),
) -> Float[Array, "B G C D"]:
    """What predicts each completion token."""
    last = texts.question[:, None, -1:]
    last = jnp.broadcast_to(last, (*texts.completion.shape[:2], 1))
    inputs = jnp.concatenate([last, texts.completion[:, :, :-1]], -1)
    is_input = jnp.concatenate(
        [jnp.ones_like(last, bool), texts.is_completion[:, :, :-1]], -1
    )
    prefix = None
    if texts.question.shape[-1] > 1:
        questions = texts.question, texts.is_question
        prefix = transformer.prefill(spec, params, *questions, numerics)
    last_position = texts.is_question.sum(-1)[:, None, None] - 1
    own = last_position + jnp.arange(inputs.shape[-1])[None, None]
    own = jnp.broadcast_to(own, inputs.shape)
    hidden, _ = transformer.forward(
        spec, params, inputs, own, is_input, prefix, numerics=numerics
    )
    return hidden


def of_states(
    spec: Spec,
    params: transformer.Params,
    hidden: Float[Array, "B G C D"],
    tokens: Int[Array, "B G C"],
    temperature: float | Float[Array, ""],
    numerics: Numerics = Numerics(),
    *,
    with_entropy: bool = False,
) -> Scores:
    """Scores of the tokens that hidden states predict.

    A chunk takes the same few tokens of every question, so rows cut over devices by
    question stay where they are.
    """
    B, G, C = tokens.shape
    # The gradient is a sum over chunks: in float32, however the parameter is stored.
    name = spec.unembedding
    wide = jnp.promote_types(params[name].dtype, jnp.float32)
    params = params | {name: params[name].astype(wide)}
    width = max(1, min(numerics.chunk // B, G * C))
    count = -(-G * C // width)

    def in_chunks(x):
        x = x.reshape(B, G * C, *x.shape[3:])
        padding = [(0, 0), (0, count * width - G * C)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, padding).reshape(B, count, width, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    @jax.checkpoint
    def score(chunk):
        states, targets = chunk
        logits = transformer.unembed(spec, params, states, numerics) / temperature
        normaliser = jax.nn.logsumexp(logits, -1)
        chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        logp = chosen - normaliser
        if not with_entropy:
            return logp, None
        mean = (jax.nn.softmax(logits, -1) * logits).sum(-1)
        return logp, normaliser - mean

    def together(x):
        return jnp.moveaxis(x, 0, 1).reshape(B, count * width)[:, : G * C]

    scores = jax.lax.map(score, (in_chunks(hidden), in_chunks(tokens)))
    scores = jax.tree.map(lambda x: together(x).reshape(B, G, C), scores)
    return Scores(*scores)


def next_logits(
    spec: Spec,
    params: transformer.Params,
    tokens: Int[Array, "B G T"],
    numerics: Numerics = Numerics(),
) -> Float[Array, "B G V"]:
    """Logits of what follows whole rows, computed at once, without a cache."""
    position = jnp.broadcast_to(jnp.arange(tokens.shape[-1]), tokens.shape)
    hidden, _ = transformer.forward(
        spec, params, tokens, position, tokens >= 0, numerics=numerics
    )
    return transformer.unembed(spec, params, hidden[:, :, -1], numerics)
