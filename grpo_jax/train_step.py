"""The gradient of a batch in parts, and the update that it makes.

A batch is cut into micro-batches of questions, whose gradients are added one after
another: memory holds one part's activations. What a loss divides by was fixed before
the cut (see `prepare`), so the parts' losses and gradients add up to those of the
whole, however it is cut and over whatever devices.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from grpo_jax import config, scoring, tree
from grpo_jax.losses import objective, statistics
from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.records import PolicyBatch


class State(NamedTuple):
    """What an update changes."""

    params: transformer.Params
    optimizer: optax.OptState


class Batch(NamedTuple):
    """One update's completions, and what the loss needs of them (see `prepare`)."""

    texts: scoring.Texts
    policy: PolicyBatch


def update(
    spec: Spec,
    numerics: Numerics,
    optimizer: optax.GradientTransformation,
    state: State,
    settings: config.Algorithm,
    batch: Batch,
    temperature: float | Float[Array, ""],
    beta: float | Float[Array, ""],
    parts: int,
) -> tuple[State, statistics.Statistics]:
    """One optimizer step."""
    known = settings, batch, temperature, beta
    grads, measured = gradient(spec, numerics, state.params, *known, parts)
    measured["grad_norm"] = statistics.Sum(optax.tree.norm(grads))
    updates, after = optimizer.update(grads, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, updates), after), measured


def gradient(
    spec: Spec,
    numerics: Numerics,
    params: transformer.Params,
    settings: config.Algorithm,
    batch: Batch,
    temperature: float | Float[Array, ""],
    beta: float | Float[Array, ""],
    parts: int,
) -> tuple[transformer.Params, statistics.Statistics]:
    """Of the policy's loss, as the sum over so many micro-batches."""
    differentiate = jax.grad(
        functools.partial(_loss, spec, numerics, settings, temperature, beta),
        has_aux=True,
    )
    if parts == 1:
        return differentiate(params, batch)

    def add(total, piece):
        grads, measured = differentiate(params, piece)
        return jax.tree.map(jnp.add, total, grads), measured

    # A sum of many gradients is kept in float32, however parameters are stored.
    nothing = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), params
    )
    grads, by_part = jax.lax.scan(add, nothing, cut(batch, parts))
    each = [jax.tree.map(lambda x: x[i], by_part) for i in range(parts)]  # noqa: B023
    return grads, functools.reduce(statistics.merge, each)


def _loss(spec, numerics, settings, temperature, beta, params, batch: Batch):
    bonus = not tree.is_zero(settings.entropy_coef)
    scores = scoring.log_probs(
        spec, params, batch.texts, temperature, numerics, with_entropy=bonus
    )
    return objective.policy_loss(
        settings, scores.logp, batch.policy, beta=beta, entropy=scores.entropy
    )


def cut(batch: Batch, parts: int) -> Batch:
    """[B, ...] → [parts, B / parts, ...]; questions that are missing are empty rows.

    Part i has the questions i, i + parts, ...: where questions are cut over devices,
    each has its share of every part, and none moves.
    """
    B = len(batch.texts.question)
    missing = -B % parts

    def in_parts(x):
        if x.ndim == 0:  # a weight of the whole batch
            return jnp.broadcast_to(x, parts)
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

    pieces: Any = jax.tree.map(in_parts, batch)
    # A question without a token would have no position to predict from.
    is_question = pieces.texts.is_question.at[..., -1].set(True)
    return pieces._replace(texts=pieces.texts._replace(is_question=is_question))
