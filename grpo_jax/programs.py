"""Every compiled program: the one file that says jit.

Static arguments and donation stand here, side by side. Settings are pytrees (see
`tree.register_settings`): a program is traced in their floats and compiled anew for
their choices. A model's description and its numerics are static.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from grpo_jax import scoring, sharding, tree
from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec
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
        prefill=_placed(prefill, transformer.Segment(new, new, rows, rows)),
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


def update(loss: Callable, optimizer: optax.GradientTransformation) -> Callable:
    """One optimizer step on `loss(params, *batch) -> (value, statistics)`.

    Parameters and optimizer state are donated: the old ones are gone after the call.
    """

    def step(params, state, *batch):
        (_, measured), grads = jax.value_and_grad(loss, has_aux=True)(params, *batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, measured

    return jax.jit(step, donate_argnums=(0, 1))


def init(spec: Spec, dtype: str, shardings: Any) -> Callable:
    """A function of a key to random parameters, made where they will be."""

    def create(key):
        params = transformer.init(spec, key)
        return jax.tree.map(lambda x: x.astype(dtype), params)

    return jax.jit(create, out_shardings=shardings)
