"""Log-probabilities and entropies of completions, a few tokens' logits at a time.

A question is computed once for its group: all of it but its last token becomes a
prefix, and every row begins with that last token, so that C inputs give the C
predictions of a completion. Hidden states become logits in chunks over tokens, which
the backward pass recomputes: `[B, G, C, V]`, the largest tensor there could be, never
exists.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grpo_jax import sharding
from grpo_jax.losses import likelihood
from grpo_jax.models import heads, transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec


class Texts(NamedTuple):
    """Questions, padded on the left, and their completions, padded on the right.

    Of whole texts the question has no token, but one place for padding: nothing stands
    before them, and what is said of their first token means nothing.
    """

    question: Int[Array, "B P"]
    is_question: Bool[Array, "B P"]  # False: padding
    completion: Int[Array, "B G C"]
    is_completion: Bool[Array, "B G C"]


# Of ragged completions laid one behind another into bins (see `packing`): the place of
# each of a bin's tokens among all that the completions of its lane have room for.
Place = Int[Array, "lanes bins W"]


class Scores(NamedTuple):
    logp: Float[Array, "B G C"]
    entropy: Float[Array, "B G C"] | None


def log_probs(
    spec: Spec,
    params: transformer.Params,
    texts: Texts,
    temperature: float | Float[Array, ""],
    numerics: Numerics = Numerics(),
    place: Place | None = None,
    *,
    with_entropy: bool = False,
) -> Scores:
    """log π(o_t | q, o_<t) of softmax(logits / T), and that distribution's entropy."""
    hidden = states(spec, params, texts, numerics, place)
    given = hidden, texts, temperature, numerics, place
    return of_states(spec, params, *given, with_entropy=with_entropy)


def states(
    spec: Spec,
    params: transformer.Params,
    texts: Texts,
    numerics: Numerics = Numerics(),
    place: Place | None = None,
) -> Float[Array, "N S W D"]:
    """What predicts each completion token: [B, G, C], or [bins, 1, width] in bins."""
    read, prefix = _read(texts, place), None
    if texts.question.shape[-1] > 1:
        questions = texts.question, texts.is_question
        prefix = transformer.prefill(spec, params, *questions, numerics)
    tokens = read.token, read.position, read.is_token
    hidden, _ = transformer.forward(
        spec, params, *tokens, prefix, numerics=numerics, bins=read.bins
    )
    return hidden


def back(
    x: Float[Array, "N S W"], texts: Texts, place: Place | None
) -> Float[Array, "B G C"]:
    """What was found of every token, from the bins to where it stands in its row."""
    if place is None:
        return x
    lanes, shape = len(place), texts.completion.shape
    flat = jnp.zeros((lanes, math.prod(shape) // lanes), x.dtype)
    put = jax.vmap(lambda flat, i, x: flat.at[i].set(x, mode="drop"))
    return put(flat, place.reshape(lanes, -1), x.reshape(lanes, -1)).reshape(shape)


class _Read(NamedTuple):
    """What a pass is given of the completions, [B, G, C], or [bins, 1, width]."""

    token: Array
    position: Array
    is_token: Array
    target: Array  # what each predicts
    bins: transformer.Bins | None


def _read(texts: Texts, place: Place | None) -> _Read:
    """Every row begins with the question's last token."""
    if place is not None:
        return _read_bins(texts, place)
    last = texts.question[:, None, -1:]
    last = jnp.broadcast_to(last, (*texts.completion.shape[:2], 1))
    token = jnp.concatenate([last, texts.completion[:, :, :-1]], -1)
    is_last = jnp.broadcast_to(texts.is_question[:, None, -1:], last.shape)
    is_token = jnp.concatenate([is_last, texts.is_completion[:, :, :-1]], -1)
    position = texts.is_question.sum(-1)[:, None, None] - 1
    position = position + jnp.arange(token.shape[-1])[None, None]
    position = jnp.broadcast_to(position, token.shape)
    return _Read(token, position, is_token, texts.completion, None)


def _read_bins(texts: Texts, place: Place) -> _Read:
    (_, G, C), (lanes, n, width) = texts.completion.shape, place.shape
    flat = texts.completion.reshape(lanes, -1)
    column = place % C
    take = jax.vmap(lambda x, i: x.at[i].get(mode="clip"))
    is_there = place < flat.shape[1]
    question = jnp.where(is_there, place // (G * C), 0)[:, :, 0]

    def of_question(x):
        return take(x.reshape(lanes, -1), question)[:, :, None]

    last = of_question(texts.question[:, -1])
    token = jnp.where(column == 0, last, take(flat, place - 1))
    is_token = is_there & ((column > 0) | of_question(texts.is_question[:, -1]))
    position = of_question(texts.is_question.sum(-1)) - 1 + column
    every = token, position, is_token, take(flat, place), place // C
    *every, row = (x.reshape(lanes * n, 1, width) for x in every)
    return _Read(*every, transformer.Bins(question, row))


def of_states(
    spec: Spec,
    params: transformer.Params,
    hidden: Float[Array, "N S W D"],
    texts: Texts,
    temperature: float | Float[Array, ""],
    numerics: Numerics = Numerics(),
    place: Place | None = None,
    *,
    with_entropy: bool = False,
) -> Scores:
    """Scores of the tokens that hidden states predict."""
    targets = _read(texts, place).target
    # The gradient is a sum over chunks: in float32, however the parameter is stored.
    weight = params[spec.unembedding]
    weight = weight.astype(jnp.promote_types(weight.dtype, jnp.float32))
    known = weight, jnp.asarray(temperature)
    score = functools.partial(_in_chunks, spec, numerics, with_entropy)
    scores = sharding.in_lanes(score, known, (hidden, targets))
    return Scores(*jax.tree.map(lambda x: back(x, texts, place), scores))


def _in_chunks(spec, numerics, with_entropy, known, rows):
    """Of the rows of one lane, so many tokens at a time."""
    B, G, C = rows[1].shape
    count = -(-B * G * C // numerics.chunk)
    width = -(-B * G * C // count)

    def in_chunks(x):
        x = x.reshape(B * G * C, *x.shape[3:])
        padding = [(0, count * width - B * G * C)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(count, width, *x.shape[1:])

    def score(chunk):
        return _score(spec, numerics, with_entropy, *known, *chunk)

    scores = jax.lax.map(score, jax.tree.map(in_chunks, rows))
    return jax.tree.map(lambda x: x.reshape(-1)[: B * G * C].reshape(B, G, C), scores)


def values(
    spec: Spec,
    params: transformer.Params,
    texts: Texts,
    numerics: Numerics = Numerics(),
    place: Place | None = None,
) -> Float[Array, "B G C"]:
    """What the critic expects where each completion token is about to be drawn."""
    hidden = states(spec, params, texts, numerics, place)
    return back(heads.scalar(params["head"], hidden), texts, place)


def judgements(
    spec: Spec,
    params: transformer.Params,
    texts: Texts,
    end: Int[Array, "B G S"],
    candidates: tuple[int, int] | None = None,
    numerics: Numerics = Numerics(),
) -> Float[Array, "B G S"]:
    """What a reward model says when it has read the tokens at `end`, as logits.

    By its head; or log P(good) / P(bad), where there are two tokens to say so. Behind
    every `end` a text has one place more, where the next token would be predicted.
    """
    hidden = states(spec, params, texts, numerics)
    hidden = jnp.take_along_axis(hidden, (end + 1)[..., None], 2)
    if candidates is None:
        return heads.scalar(params["head"], hidden)
    both = heads.judgement(spec, params, hidden, *candidates, numerics)
    return likelihood.candidate_logit(*both)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _score(spec, numerics, with_entropy, weight, temperature, states, targets):
    """Of one chunk. The gradient makes its logits again, and its softmax at once."""
    return _score_and_keep(
        spec, numerics, with_entropy, weight, temperature, states, targets
    )[0]


def _score_and_keep(spec, numerics, with_entropy, weight, temperature, states, targets):
    logits = _logits(spec, numerics, weight, temperature, states)
    top = logits.max(-1)
    normaliser = top + jnp.log(_total(jnp.exp(logits - top[..., None])))
    chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    entropy = mean = None
    if with_entropy:
        p = jnp.exp(logits - normaliser[..., None])
        mean = _total(p * logits)
        entropy = normaliser - mean
    kept = weight, temperature, states, targets, normaliser, mean
    return (chosen - normaliser, entropy), kept


def _total(x):
    """Over the vocabulary; a product with ones where that is the fast way to add."""

    def product(x):
        with jax.default_matmul_precision("highest"):
            return x @ jnp.ones(x.shape[-1], x.dtype)

    return jax.lax.platform_dependent(x, cpu=product, default=lambda x: x.sum(-1))


def _score_gradient(spec, numerics, with_entropy, kept, pull):
    """∂log p_i/∂z_j = [i = j] − p_j and ∂H/∂z_j = p_j (Σ p z − z_j), z the logits."""
    *inputs, targets, normaliser, mean = kept
    logits, back_to_inputs = jax.vjp(
        functools.partial(_logits, spec, numerics), *inputs
    )
    of_logp, of_entropy = pull
    p = jnp.exp(logits - normaliser[..., None])
    ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    change = of_logp[..., None] * ((ids == targets[..., None]) - p)
    if with_entropy:
        change += of_entropy[..., None] * p * (mean[..., None] - logits)
    return *back_to_inputs(change), None


_score.defvjp(_score_and_keep, _score_gradient)


def _logits(spec, numerics, weight, temperature, states):
    params = {spec.unembedding: weight}
    return transformer.unembed(spec, params, states, numerics) / temperature


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
