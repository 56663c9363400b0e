"""What a run would compile, lowered for devices that need not be here."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.stages import Compiled, Lowered

from grpo_jax import pool, programs, sharding, topology
from grpo_jax.models import transformer
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
    """The largest programs of a rollout: questions read, and answers decoded."""
    settings, mesh = sampler.settings, sampler.mesh
    run = programs.decoding(sampler.spec, sampler.numerics, mesh)
    room = pool.room(sampler, questions, longest)
    params, lanes = published(sampler, dtype), sharding.lanes(mesh)

    def rows(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=run.rows)

    read = lanes * room.batch, room.width
    given = params, rows("int32", *read), rows("bool", *read)
    yield "prefill", run.prefill.lower(*given)

    shape, width = room.ladder[0], room.width - 1
    masks = (rows(dtype, lanes, room.slots, width) for dtype in ("int32", "bool"))
    columns = shapes.columns(settings.max_new, settings.segment, settings.max_new)
    N, G = lanes * shape.blocks, shape.rows
    numbers = [rows("int32", N, *axes) for axes in ((), (), *[(G,)] * 5)]
    known = (
        decode.Limits(sampler.size, np.asarray(sampler.stop_ids), settings.min_new),
        draw.rule(settings),
        jax.random.key(0),
        0,
    )
    everywhere = NamedSharding(mesh, P())
    lowered = run.segment.lower(
        params,
        decode.Prefixes(*_empty(sampler, room.slots, width), *masks),
        _empty(sampler, shape.size, columns),
        decode.Rows(*numbers, rows("bool", N, G), rows("int32", N, G)),
        *jax.tree.map(lambda x: _at(jnp.asarray(x), everywhere), known),
        steps=settings.segment,
        in_slots=shape == (room.slots, sampler.group_size),
        at_rest=True,
    )
    yield "decode", lowered


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
    sizes["in all"] = m.peak_memory_in_bytes or held + m.temp_size_in_bytes
    return {name: size / topology.GIB for name, size in sizes.items()}


def _at(x: Any, where: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
