"""Every compiled program: the one file that says jit.

Static arguments and donation stand here, side by side. Settings are pytrees (see
`tree.register_settings`): a program is traced in their floats and compiled anew for
their choices. A model's description and its numerics are static.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from grpo_jax import line, prepare, scoring, sharding, train_step, tree
from grpo_jax.losses import statistics
from grpo_jax.models import lora as _lora
from grpo_jax.models import transformer
from grpo_jax.models.settings import Lora, Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.records import PolicyBatch
from grpo_jax.sampling import decode as _decode
from grpo_jax.sampling import draw as _draw
from grpo_jax.section import Refused

# A stacked parameter is filled in place, layer after layer.
put_layer = jax.jit(
    lambda stacked, value, layer: stacked.at[layer].set(value),
    donate_argnames="stacked",
)
draws = jax.jit(_draw.repeatedly, static_argnames="count")
next_logits = jax.jit(scoring.next_logits, static_argnames=("spec", "numerics"))
score = jax.jit(scoring.log_probs, static_argnames=("spec", "numerics", "with_entropy"))


def keep():
    """Keeps what is compiled from here on for the next start, if nobody said where."""
    is_told = "JAX_COMPILATION_CACHE_DIR" in os.environ
    if not is_told and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", line.cache())


class Compilations:
    """How many programs were compiled since it was made."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, seconds: float, **_):
        self.count += event.endswith("backend_compile_duration")


class Decoding(NamedTuple):
    """What a rollout runs, for one model on one mesh."""

    prefill: Callable  # questions → their keys and values
    enter: Callable  # ... into their slots
    segment: Callable  # some tokens more of every row
    grow: Callable  # more columns for every row
    empty: Callable
    rows: Any  # where the host's arrays of rows go
    everywhere: Any


@functools.cache
def decoding(spec: Spec, numerics: Numerics, mesh: Mesh | None) -> Decoding:
    """Stores and prefixes are written in place: those that were given are gone."""
    kv = new = rows = everywhere = None
    if mesh is not None:
        rows, everywhere = sharding.of_rows(mesh), NamedSharding(mesh, P())
        kv = sharding.of_cache(spec, mesh, axes_between=1)
        new = sharding.of_cache(spec, mesh, axes_between=0)
    segment = functools.partial(_decode.segment, spec, numerics)
    prefill = functools.partial(transformer.prefill, spec, numerics=numerics)
    return Decoding(
        prefill=_placed(
            sharding.on_mesh(prefill, mesh),
            transformer.Segment(new, new, rows, rows),
        ),
        enter=_placed(
            _decode.enter,
            _decode.Prefixes(kv, kv, rows, rows),
            donate_argnames="prefixes",
        ),
        segment=_placed(
            segment,
            (_decode.Store(kv, kv), everywhere),
            static_argnames=("steps", "in_slots", "at_rest"),
            donate_argnames="store",
        ),
        grow=_placed(_decode.grow, kv, static_argnames="columns"),
        empty=_placed(
            functools.partial(_decode.empty, spec),
            kv,
            static_argnames=("lanes", "rows", "columns", "dtype"),
        ),
        rows=rows,
        everywhere=everywhere,
    )


def _placed(function: Callable, where: Any, **options: Any) -> Callable:
    """Compiled, with what it returns where it belongs; None: one device has all."""
    if jax.tree.leaves(where):
        options["out_shardings"] = where
    return jax.jit(function, **options)


def publish(
    params: transformer.Params, dtype: str, mesh: Mesh | None = None, *, spends=False
) -> transformer.Params:
    """A copy to sample with: layers apart, in its own precision and place.

    If it `spends` the parameters, they are gone, and memory holds both copies of one
    stacked parameter at a time.
    """
    if isinstance(params["layers"], tuple):
        raise Refused("these parameters are such a copy already.")
    where = jax.tree.map(lambda _: None, params)
    if mesh is not None:
        where = sharding.for_decoding(params, mesh)

    def copy(path, x, where):
        parts = _published(dtype, path.startswith("layers/"), where)(x)
        if spends:
            x.delete()
        return parts

    paths = tree.paths(params)
    copies = jax.tree.map(copy, paths, params, where)
    stacks = copies.pop("layers")
    one = lambda i: {name: parts[i] for name, parts in stacks.items()}  # noqa: E731
    L = len(next(iter(stacks.values())))
    return copies | {"layers": tuple(map(one, range(L)))}


@functools.cache
def _published(dtype: str, is_stacked: bool, where: Any) -> Callable:
    def copy(x):
        x = jnp.copy(x.astype(dtype))  # never the same buffer: that may be donated
        return tuple(x[i] for i in range(len(x))) if is_stacked else x

    return _placed(copy, where)


def forward(function: Callable, static_argnames: tuple[str, ...] = ()) -> Callable:
    """A function of parameters that leaves them where they are."""
    return jax.jit(function, static_argnames=static_argnames)


class Learning(NamedTuple):
    """What the updates of a rollout run besides `update`, for one model on one mesh."""

    pick: Callable  # one minibatch's share of a layout
    score: Callable  # its log-probabilities by any parameters
    value: Callable
    whole: Callable  # those of all minibatches
    prepare: Callable
    minibatch: Callable
    merge: Callable
    rows: Any  # where the host's arrays of questions go,
    shares: Any  # of blocks, by minibatch,
    cells: Any  # and the places of their tokens
    everywhere: Any


@functools.cache
def learning(spec: Spec, numerics: Numerics, lora: Lora, mesh: Mesh) -> Learning:
    rows, everywhere = sharding.of_rows(mesh), NamedSharding(mesh, P())
    weights = {"entropy_weight": everywhere, "value_weight": everywhere}
    minibatch = PolicyBatch(*(rows,) * len(PolicyBatch._fields))._replace(**weights)

    on_mesh = functools.partial(sharding.on_mesh, mesh=mesh)

    def score(params, frozen, share, temperature, parts, *, with_entropy):
        params = train_step.with_frozen(params, frozen, lora)

        def one(texts, place):
            known = texts, temperature, numerics, place
            return scoring.log_probs(spec, params, *known, with_entropy=with_entropy)

        return train_step.of_blocks(one, share, parts)

    def value(params, frozen, share, parts):
        params = train_step.with_frozen(params, frozen, lora)
        one = functools.partial(scoring.values, spec, params, numerics=numerics)
        return train_step.of_blocks(lambda t, p: one(t, place=p), share, parts)

    return Learning(
        pick=jax.jit(lambda shares, number: jax.tree.map(lambda x: x[number], shares)),
        score=_placed(on_mesh(score), rows, static_argnames=("parts", "with_entropy")),
        value=_placed(on_mesh(value), rows, static_argnames="parts"),
        whole=_placed(train_step.whole, rows, static_argnames="group"),
        prepare=_placed(prepare.rollout, (rows, everywhere)),
        minibatch=_placed(train_step.minibatch, minibatch),
        merge=jax.jit(statistics.merge),
        rows=rows,
        shares=NamedSharding(mesh, P(None, *rows.spec)),
        cells=NamedSharding(mesh, P(None, None, *rows.spec)),
        everywhere=everywhere,
    )


@functools.cache
def judging(spec: Spec, numerics: Numerics, lora: Lora, mesh: Mesh) -> Callable:
    """A reward model's scores of some texts, by any parameters."""

    def judge(params, frozen, texts, end, candidates):
        params = train_step.with_frozen(params, frozen, lora)
        return scoring.judgements(spec, params, texts, end, candidates, numerics)

    where = sharding.of_rows(mesh)
    return _placed(sharding.on_mesh(judge, mesh), where, static_argnames="candidates")


def update(
    loss: train_step.Loss, optimizer: optax.GradientTransformation, where: Any = None
) -> Callable:
    """One step of the optimizer (see `train_step.update`).

    Parameters and optimizer state are donated: the old ones are gone after the call.
    """
    step, mesh = functools.partial(train_step.update, loss, optimizer), None
    if where is not None:
        mesh = jax.tree.leaves(where)[0].mesh
        where = where, NamedSharding(mesh, P())
    step = sharding.on_mesh(step, mesh)
    return _placed(step, where, static_argnames="parts", donate_argnames="state")


def begin(optimizer: optax.GradientTransformation, where: Any = None) -> Callable:
    """Of parameters, which are gone then, to their state before the first update."""

    init = _placed(optimizer.init, where and where.optimizer)

    def first(params):
        if where is not None:
            params = jax.device_put(params, where.params, donate=True)
        return train_step.State(params, init(params))

    return first


# Of two trees of parameters, as a moving average, in place of the first.
mix = jax.jit(
    lambda old, new, share: jax.tree.map(
        lambda a, b: ((1 - share) * a + share * b).astype(a.dtype), old, new
    ),
    donate_argnums=0,
)
# A model with its adapters multiplied out.
merged = jax.jit(_lora.merge, static_argnames="chosen")
copy = jax.jit(lambda params: jax.tree.map(jnp.copy, params))


def init(spec: Spec, dtype: str, shardings: Any) -> Callable:
    """A function of a key to random parameters, made where they will be."""

    def create(key):
        params = transformer.init(spec, key)
        return jax.tree.map(lambda x: x.astype(dtype), params)

    return jax.jit(create, out_shardings=shardings)
