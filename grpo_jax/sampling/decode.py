"""Completions, token by token: pure functions over [N, G] rows that know no tokenizer.

Rows stand in blocks: N blocks of G rows, all rows of a block answer the same question,
whose keys and values stand once per block. All rows write the same column of the cache,
and after the last column the first; a row that began later has nothing in the columns
before. What a row draws depends on its question, its sample and its place alone, never
on where it stands or beside whom.

What is kept between calls stands in D lanes, one per device that rows are cut over. A
row stays in its lane, so no keys or values ever travel. Layers stand apart (see
`transformer`), in the parameters as in the cache.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from grpo_jax import prng
from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.sampling import draw


class Store(NamedTuple):
    """Keys and values of all rows at hand, by layer; S grows with the rows."""

    key: tuple[Float[Array, "D R K H S"], ...]
    value: tuple[Float[Array, "D R K S H"], ...]


class Prefixes(NamedTuple):
    """Keys and values of all questions at hand, without their last tokens."""

    key: tuple[Float[Array, "D Q K H P"], ...]
    value: tuple[Float[Array, "D Q K P H"], ...]
    position: Int[Array, "D Q P"]
    is_token: Bool[Array, "D Q P"]


class Rows(NamedTuple):
    """What the host says of the rows that are decoded next, lane after lane."""

    slot: Int[Array, "N"]  # of the block's question among its lane's prefixes
    number: Int[Array, "N"]  # of the block's question in the stream of data
    sample: Int[Array, "N G"]  # of the row in its group
    token: Int[Array, "N G"]  # the last one, not in the cache yet
    first: Int[Array, "N G"]  # position of the question's last token
    age: Int[Array, "N G"]  # tokens drawn so far, as many as are in the cache
    budget: Int[Array, "N G"]  # tokens to be drawn in all
    is_live: Bool[Array, "N G"]
    source: Int[Array, "N G"]  # where the row stands in its lane's store


class Limits(NamedTuple):
    """Which ids there are, and when they may end a row."""

    size: Int[Array, ""]  # ids from here on only fill the vocabulary up
    stops: Int[Array, "K"]
    min_new: Int[Array, ""]  # before that many tokens no stop is drawn


def segment(
    spec: Spec,
    numerics: Numerics,
    params: transformer.Params,
    prefixes: Prefixes,
    store: Store,
    rows: Rows,
    limits: Limits,
    rule: draw.Rule,
    key: Key[Array, ""],  # of the step
    column: Int[Array, ""],  # of the cache, that is written first
    steps: int,
    in_slots: bool,  # block i is slot i
    at_rest: bool,  # row i stands at i
) -> tuple[Store, draw.Drawn]:
    """Up to `steps` tokens more of every live row, [T, N, G]; −1 where none is."""
    blocks = _of_blocks(prefixes, rows.slot, in_slots)
    row_keys = prng.row_keys(key, rows.number, rows.sample)

    def more(state):
        i, *_, is_live, _ = state
        return (i < steps) & is_live.any()

    def one(state):
        i, token, cache, is_live, drawn = state
        age = rows.age + i
        logits, cache = _step(
            spec,
            params,
            blocks,
            cache,
            column + i,
            (token, rows.first + age, is_live),
            numerics,
        )
        allowed = _allowed(limits, age, logits.shape[-1])
        new = draw.draw(logits, prng.uniforms_at(row_keys, age), rule, allowed)
        new = new._replace(token=jnp.where(is_live, new.token, -1))
        drawn = jax.tree.map(lambda table, x: table.at[i].set(x), drawn, new)
        is_stop = jnp.isin(new.token, limits.stops)
        is_live &= ~is_stop & (age + 1 < rows.budget)
        return i + 1, jnp.maximum(new.token, 0), cache, is_live, drawn

    shape = steps, *rows.token.shape
    table = draw.Drawn(jnp.full(shape, -1), jnp.zeros(shape), jnp.zeros(shape))
    view = _view(store, rows, column, at_rest)
    begin = 0, rows.token, view, rows.is_live, table
    _, _, cache, _, drawn = jax.lax.while_loop(more, one, begin)
    return _put_back(store, cache), drawn


def _step(spec, params, blocks, cache, column, last, numerics):
    """Logits of what follows the last tokens, which are written to the cache."""
    inputs = (x[:, :, None] for x in last)
    hidden, cache = transformer.forward(
        spec, params, *inputs, blocks, cache, column, numerics
    )
    return transformer.unembed(spec, params, hidden[:, :, 0], numerics), cache


def _of_blocks(prefixes: Prefixes, slot: Array, in_slots: bool) -> transformer.Segment:
    """The prefix of each block's question."""
    by_lane = slot.reshape(len(prefixes.position), -1)

    def pick(x):
        if not in_slots:
            x = jax.vmap(lambda x, i: x[i])(x, by_lane)
        return x.reshape(len(slot), *x.shape[2:])

    return transformer.Segment(*jax.tree.map(pick, prefixes))


def _view(
    store: Store, rows: Rows, column: Array, at_rest: bool
) -> transformer.Segment:
    """The rows in blocks, with what each has in the cache: its `age` last columns."""
    N, G = rows.token.shape
    D, *_, S = store.key[0].shape

    def in_blocks(x):
        if not at_rest:
            x = jax.vmap(lambda x, i: x[i])(x, rows.source.reshape(D, -1))
        return x[:, : N * G // D].reshape(N, G, *x.shape[2:])

    columns = jnp.arange(S)[None, None, :]
    since_start = (columns - (column - rows.age)[:, :, None]) % S
    is_token = since_start < rows.age[:, :, None]
    position = rows.first[:, :, None] + since_start
    return transformer.Segment(*jax.tree.map(in_blocks, store), position, is_token)


def _put_back(store: Store, cache: transformer.Segment) -> Store:
    def over(old, new):
        rows = new.reshape(len(old), -1, *old.shape[2:])
        return jax.lax.dynamic_update_slice_in_dim(old, rows, 0, 1)

    return jax.tree.map(over, store, Store(cache.key, cache.value))


def _allowed(limits: Limits, age: Array, vocab: int) -> Bool[Array, "N G V"]:
    """All ids of the tokenizer, but no stop before the least length."""
    ids = jnp.arange(vocab)
    early = (age < limits.min_new)[:, :, None]
    is_stop = jnp.isin(ids, limits.stops)[None, None, :]
    return (ids < limits.size)[None, None, :] & ~(early & is_stop)


def empty(spec: Spec, lanes: int, rows: int, columns: int, dtype: str) -> Store:
    """Room for that many rows, or questions, in each lane."""

    def of_layers(*shape):
        shape = lanes, rows, spec.kv_heads, *shape
        return tuple(jnp.zeros(shape, dtype) for _ in range(spec.layers))

    H = spec.head_size
    return Store(of_layers(H, columns), of_layers(columns, H))


def grow(store: Store, first: Int[Array, ""], columns: int) -> Store:
    """The same with more columns, where the column `first` is the first."""
    more = 0, columns - store.key[0].shape[-1]
    no = 0, 0

    def widen(x, axis, padding):
        return jnp.pad(jnp.roll(x, -first, axis), padding)

    return Store(
        tuple(widen(x, -1, (no, no, no, no, more)) for x in store.key),
        tuple(widen(x, -2, (no, no, no, more, no)) for x in store.value),
    )


def enter(
    prefixes: Prefixes, new: transformer.Segment, slot: Int[Array, "D E"]
) -> Prefixes:
    """The prefixes with those of new questions, lane after lane, in their slots.

    What goes into a slot that there is not goes nowhere.
    """
    lanes, each = slot.shape

    def put(old, new):
        new = new.astype(old.dtype).reshape(lanes, each, *old.shape[2:])
        into = lambda x, i, new: x.at[i].set(new, mode="drop")  # noqa: E731
        return jax.vmap(into)(old, slot, new)

    return jax.tree.map(put, prefixes, Prefixes(*new))
