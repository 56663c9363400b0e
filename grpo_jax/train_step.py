"""The gradient of a batch in parts, and the update that it makes.

A batch is cut into parts of whole questions, whose gradients are added one after
another: memory holds one part's activations. What a loss divides by was fixed before
the cut (see `prepare`), so the parts' losses and gradients add up to those of the
whole, however it is cut and over whatever devices.

The step serves any loss(known, params, batch, place) → (number, statistics): `known`
is what all parts share, `place` where their tokens stand (see `packing`). The losses of
policies and critics are here.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from grpo_jax import config, prepare, prng, scoring, tree
from grpo_jax.losses import objective, statistics, value
from grpo_jax.models import heads, lora, transformer
from grpo_jax.models.settings import Lora, Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.records import PolicyBatch

Loss = Callable[..., tuple[Float[Array, ""], statistics.Statistics]]
Place = Int[Array, "parts lanes bins W"]


class State(NamedTuple):
    """What an update changes."""

    params: Any
    optimizer: optax.OptState


class Share(NamedTuple):
    """One minibatch laid out in blocks (see `packing`)."""

    texts: scoring.Texts
    order: Int[Array, "N"]  # the block that stands there
    stands: Int[Array, "blocks"]  # where a block stands
    place: Place | None


class Batch(NamedTuple):
    """One update's completions, and what the loss needs of them (see `prepare`)."""

    texts: scoring.Texts
    policy: PolicyBatch


class Known(NamedTuple):
    """What the losses read besides parameters and batch."""

    settings: config.Algorithm
    temperature: float | Float[Array, ""]
    beta: float | Float[Array, ""]
    critic: config.Critic | None = None
    frozen: transformer.Params | None = None  # what adapters adapt


def update(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: State,
    known: Any,
    batch: Any,
    place: Place | None = None,
    parts: int = 1,
) -> tuple[State, statistics.Statistics]:
    """One optimizer step."""
    grads, measured = gradient(loss, state.params, known, batch, place, parts)
    norm = optax.tree.norm(grads)
    # Of finite gradients as well, whose squares are not: no step has their direction.
    is_finite = jnp.isfinite(norm)
    grads = jax.tree.map(lambda x: jnp.where(is_finite, x, jnp.nan), grads)
    measured = statistics.each(measured)
    measured["grad_norm"] = statistics.mean(norm, is_finite)
    measured["skipped"] = statistics.mean(1.0 - is_finite, jnp.array(True))
    updates, after = optimizer.update(grads, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, updates), after), measured


def gradient(
    loss: Loss,
    params: Any,
    known: Any,
    batch: Any,
    place: Place | None = None,
    parts: int = 1,
) -> tuple[Any, statistics.Statistics]:
    """Of the loss with respect to the parameters, as the sum over so many parts."""
    differentiate = jax.grad(functools.partial(loss, known), has_aux=True)
    if parts == 1:
        return differentiate(params, batch, None if place is None else place[0])

    def add(total, piece):
        grads, measured = differentiate(params, *piece)
        return jax.tree.map(jnp.add, total, grads), measured

    # A sum of many gradients is kept in float32, however parameters are stored.
    nothing = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), params
    )
    grads, by_part = jax.lax.scan(add, nothing, (in_parts(batch, parts), place))
    first = jax.tree.map(lambda x: x[0], by_part)
    rest = jax.tree.map(lambda x: x[1:], by_part)
    together = lambda a, b: (statistics.merge(a, b), None)  # noqa: E731
    return grads, jax.lax.scan(together, first, rest)[0]


def in_parts(batch: Any, parts: int) -> Any:
    """[B, ...] → [parts, B / parts, ...]: part i has the questions i, i + parts, ...

    Where questions are cut over devices, each has its share of every part, and none
    moves. A number that weighs the whole batch weighs each part.
    """

    def one(x):
        x = jnp.asarray(x)
        if x.ndim == 0:
            return jnp.broadcast_to(x, parts)
        return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

    return jax.tree.map(one, batch)


def together(by_part: Any) -> Any:
    """[parts, B / parts, ...] → [B, ...], where `in_parts` had them."""
    one = lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])  # noqa: E731
    return jax.tree.map(one, by_part)


def of_blocks(function: Callable, share: Share, parts: int) -> Any:
    """function(texts, place) of a part at a time, in the order of blocks."""

    def in_order(x):
        return jnp.take(x, share.stands, 0, mode="fill", fill_value=0)

    place = share.place
    if parts == 1:
        found = function(share.texts, None if place is None else place[0])
        return jax.tree.map(in_order, found)
    pieces = in_parts(share.texts, parts), place
    found = jax.lax.map(lambda piece: function(*piece), pieces)
    return jax.tree.map(lambda x: in_order(together(x)), found)


def whole(by_minibatch: list[Array], group: int) -> Float[Array, "B G C"]:
    """From the blocks of each minibatch to all questions."""
    columns = by_minibatch[0].shape[-1]
    return together(jnp.stack([x.reshape(-1, group, columns) for x in by_minibatch]))


def minibatch(
    settings: config.Algorithm,
    rollout: PolicyBatch,
    number: int | Int[Array, ""],
    now: scoring.Scores | None,
    questions: Int[Array, "B"],
    key: Key[Array, ""],
    update: int | Int[Array, ""],
    share: Share,
) -> PolicyBatch:
    """Minibatch `number` of a rollout as the loss reads it, laid out.

    Scores of now, and draws by the step's key, the update, question and sample, are
    for what `settings.selects`.
    """
    M, shape = settings.minibatches, rollout.is_completion.shape
    chosen, questions = jax.tree.map(
        lambda x: x[number], in_parts((rollout, questions), M)
    )
    logp = entropy = keys = None
    if now is not None:
        logp, entropy = (x.reshape(-1, *shape[1:]) for x in now)
    if settings.surrogate == "clip_cov":
        draws = jax.random.fold_in(key, update)
        keys = prng.sample_keys(draws, questions, shape[1])
    tokens = rollout.is_completion.sum()
    given = settings, chosen, logp, entropy, keys
    batch = prepare.minibatch(*given, rollout_tokens=tokens, parts=M)
    rows = share.texts.completion.shape[1]

    def laid(x):
        if x.ndim == 0:  # a weight of the whole minibatch
            return x
        blocks = x.reshape(-1, rows, *x.shape[2:])
        return jnp.take(blocks, share.order, 0, mode="fill", fill_value=0)

    return jax.tree.map(laid, batch)


def with_frozen(
    params: transformer.Params, frozen: transformer.Params | None, chosen: Lora
) -> transformer.Params:
    """The model's parameters, of which perhaps only adapters are trained."""
    if frozen is None:
        return params
    return params | lora.join(frozen, params, chosen)


def policy_loss(
    spec: Spec,
    numerics: Numerics,
    chosen: Lora,
    known: Known,
    params: transformer.Params,
    batch: Batch,
    place: scoring.Place | None,
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """GRPO's and its heirs'; with a critic on the same trunk, weighted, its too."""
    params = with_frozen(params, known.frozen, chosen)
    bonus = not tree.is_zero(known.settings.entropy_coef)
    hidden = scoring.states(spec, params, batch.texts, numerics, place)
    given = hidden, batch.texts, known.temperature, numerics, place
    scores = scoring.of_states(spec, params, *given, with_entropy=bonus)
    loss, measured = objective.policy_loss(
        known.settings,
        scores.logp,
        batch.policy,
        beta=known.beta,
        entropy=scores.entropy,
    )
    if known.critic is None:
        return loss, measured
    found = scoring.back(heads.scalar(params["head"], hidden), batch.texts, place)
    error, more = _value_loss(known.critic, found, batch.policy)
    return loss + known.critic.weight * error, measured | more


def critic_loss(
    spec: Spec,
    numerics: Numerics,
    known: Known,
    params: transformer.Params,
    batch: Batch,
    place: scoring.Place | None,
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """Of a critic on a trunk of its own."""
    found = scoring.values(spec, params, batch.texts, numerics, place)
    return _value_loss(known.critic, found, batch.policy)


def _value_loss(critic: config.Critic, found: Array, batch: PolicyBatch):
    return value.value_loss(
        found,
        batch.old_value,
        batch.returns,
        batch.is_completion,
        clip=critic.clip,
        token_weight=batch.value_weight,
    )
