"""What a run would compile, lowered for devices that need not be here."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled, Lowered

from grpo_jax import pool, programs, sharding
from grpo_jax.models import transformer
from grpo_jax.models.memory import GIB
from grpo_jax.sampling import decode, draw, shapes


def published(sampler: pool.Sampler, dtype: str) -> transformer.Params:
    """The shapes and places of parameters to sample with."""
    stacked = transformer.abstract(sampler.spec, dtype)
    where = sharding.for_decoding(stacked, sampler.mesh)
    layer = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=where),
        stacked["layers"],
        where["layers"],
    )
    others = {k: _at(x, where[k]) for k, x in stacked.items() if k != "layers"}
    return others | {"layers": (layer,) * sampler.spec.layers}


def sampling(
    sampler: pool.Sampler, dtype: str, questions: int, longest: int
) -> Iterator[tuple[str, Lowered]]:
    """Of a rollout, those that need most: questions read, all rows decoded, and those
    that are left picked out of all."""
    mesh, lanes = sampler.mesh, sharding.lanes(sampler.mesh)
    run = programs.decoding(sampler.spec, sampler.numerics, mesh)
    room = pool.room(sampler, questions, longest)
    params, rows = published(sampler, dtype), functools.partial(_rows, run.rows)
    read = lanes * room.batch, room.width
    given = params, rows("int32", *read), rows("bool", *read)
    yield "prefill", run.prefill.lower(*given)
    yield "decode", _segment(sampler, params, room, room.ladder[0], at_rest=True)
    if len(room.ladder) > 1:
        shape = room.ladder[1]
        yield "decode fewer", _segment(sampler, params, room, shape, at_rest=False)


def _rows(where: Any, dtype: str, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _segment(
    sampler: pool.Sampler,
    params: transformer.Params,
    room: pool.Room,
    shape: shapes.Shape,
    *,
    at_rest: bool,
) -> Lowered:
    settings, mesh = sampler.settings, sampler.mesh
    run = programs.decoding(sampler.spec, sampler.numerics, mesh)
    lanes, rows = sharding.lanes(mesh), functools.partial(_rows, run.rows)
    width, N, G = room.width - 1, lanes * shape.blocks, shape.rows
    masks = (rows(dtype, lanes, room.slots, width) for dtype in ("int32", "bool"))
    columns = shapes.columns(settings.max_new, settings.segment, settings.max_new)
    numbers = [rows("int32", N, *axes) for axes in ((), (), *[(G,)] * 5)]
    stops = np.asarray(sampler.stop_ids, int)
    known = (
        decode.Limits(sampler.size, stops, settings.min_new),
        draw.rule(settings),
        jax.random.key(0),
        0,
    )
    return run.segment.lower(
        params,
        decode.Prefixes(*_empty(sampler, room.slots, width), *masks),
        _empty(sampler, room.ladder[0].size, columns),
        decode.Rows(*numbers, rows("bool", N, G), rows("int32", N, G)),
        *jax.tree.map(lambda x: _at(jnp.asarray(x), run.everywhere), known),
        steps=settings.segment,
        in_slots=shape == room.home,
        at_rest=at_rest,
    )


def _empty(sampler: pool.Sampler, count: int, columns: int) -> decode.Store:
    spec, mesh = sampler.spec, sampler.mesh
    sizes = sharding.lanes(mesh), count, columns, sampler.settings.cache
    made = jax.eval_shape(lambda: decode.empty(spec, *sizes))
    where = sharding.of_cache(spec, mesh, axes_between=1)
    return jax.tree.map(lambda x: _at(x, where), made)


def memory(compiled: Compiled) -> dict[str, float]:
    """GiB of each device: what it is given, what it adds, and the most at any time."""
    m = compiled.memory_analysis()
    held = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    sizes = {"arguments": m.argument_size_in_bytes, "temporary": m.temp_size_in_bytes}
    # A TPU's temporaries share room, and its peak knows it; a CPU's peak lacks them.
    where = jax.tree.leaves(compiled.input_shardings)[0]
    is_tpu = next(iter(where.device_set)).platform == "tpu"
    sizes["in all"] = m.peak_memory_in_bytes if is_tpu else held + m.temp_size_in_bytes
    return {name: size / GIB for name, size in sizes.items()}


def _at(x: Any, where: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
