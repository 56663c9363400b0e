"""What a run would compile, lowered for devices that need not be here."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled, Lowered

from grpo_jax import (
    learner,
    packing,
    pool,
    prepare,
    programs,
    scoring,
    sharding,
    train_step,
)
from grpo_jax.models import transformer
from grpo_jax.models.memory import GIB
from grpo_jax.records import PolicyBatch, Rewards
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
    """Of a rollout, those that need most: questions read, all rows decoded, those that
    are left picked out of all, and the cache given its last columns."""
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
    widths = pool.widths(sampler.settings)
    if len(widths) > 1:
        *_, before, last = widths
        store = _empty(sampler, room.ladder[0].size, before)
        first = _at(jnp.asarray(0), run.everywhere)
        yield "grow", run.grow.lower(store, first, columns=last)


def stored(sampler: pool.Sampler, questions: int, longest: int) -> dict[str, Any]:
    """Keys and values that stand beside the parameters: of rows, and of questions."""
    room = pool.room(sampler, questions, longest)
    columns = pool.widths(sampler.settings)[-1]
    rows = _empty(sampler, room.ladder[0].size, columns)
    return {"rows": rows, "questions": _empty(sampler, room.slots, room.width - 1)}


class Size(NamedTuple):
    """Of one rollout's texts, completions all equally long."""

    questions: int
    prompt: int
    columns: int
    bins: int | None = None  # of each part on each lane; None: each row is its own


def learning(run: learner.Learner, size: Size) -> Iterator[tuple[str, Lowered]]:
    """Of an update, and of the scores that come before it."""
    chosen, do = run.settings, run.programs
    parts, algorithm = chosen.training.parts, chosen.algorithm
    share = _share(run, size)
    scalars = algorithm, chosen.sampling.temperature, algorithm.beta
    known = jax.tree.map(
        lambda x: _at(jnp.float32(x), do.everywhere), train_step.Known(*scalars)
    )
    frozen = _frozen(run)
    if algorithm.needs_old or algorithm.needs_reference:
        given = run.policy.state.params, frozen, share, known.temperature, parts
        yield "score", do.score.lower(*given, with_entropy=algorithm.selects)
    batch = train_step.Batch(share.texts, _policy_batch(run, share, known))
    if run.critic is not None:
        given = run.critic.state, known._replace(critic=_critic(run)), batch
        yield "critic", run.critic.update.lower(*given, share.place, parts=parts)
    shares_trunk = algorithm.has_critic and run.critic is None
    known = known._replace(frozen=frozen, critic=_critic(run) if shares_trunk else None)
    given = run.policy.state, known, batch, share.place
    yield "update", run.policy.update.lower(*given, parts=parts)


def _share(run: learner.Learner, size: Size) -> train_step.Share:
    """One minibatch, laid out over all lanes."""
    chosen, do = run.settings, run.programs
    G, M = chosen.algorithm.group_size, chosen.algorithm.minibatches
    lanes, parts = sharding.lanes(run.mesh), chosen.training.parts
    full = np.full((size.questions, G), size.columns)
    everyone = packing.Lanes(0, lanes)
    layout = packing.lay(full, everyone, M, parts, size.columns, size.prompt)
    rows = functools.partial(_rows, do.rows)
    N, blocks = layout.order.shape[1], layout.stands.shape[1]
    asked, every = (N, size.prompt), (N, G // layout.split, size.columns)
    texts = scoring.Texts(
        *(rows(dtype, *asked) for dtype in ("int32", "bool")),
        *(rows(dtype, *every) for dtype in ("int32", "bool")),
    )
    place = None
    if size.bins is not None:
        place = _rows(do.shares, "int32", parts, lanes, size.bins, size.columns)
    return train_step.Share(texts, rows("int32", N), rows("int32", blocks), place)


def _frozen(run: learner.Learner) -> transformer.Params | None:
    if not run.settings.model.lora.rank:
        return None
    params = transformer.abstract(run.spec, run.settings.model.dtype)
    return sharding.placed(params, run.mesh)


def _critic(run: learner.Learner):
    where = run.programs.everywhere
    return jax.tree.map(lambda x: _at(jnp.float32(x), where), run.settings.critic)


def _policy_batch(run: learner.Learner, share: train_step.Share, known) -> PolicyBatch:
    """What `prepare` makes of a rollout whose sampler recorded what it drew."""
    chosen, do = run.settings.algorithm, run.programs
    _, rows, columns = share.texts.completion.shape
    (blocks,), G = share.stands.shape, chosen.group_size
    shape = blocks * rows // G * chosen.minibatches, G, columns
    numbers = jax.ShapeDtypeStruct(shape, "float32")
    everyone = jax.ShapeDtypeStruct(shape[:2], "bool")
    parts = jax.ShapeDtypeStruct((*shape[:2], 1), "float32")
    rewards = Rewards(parts, jax.ShapeDtypeStruct(shape, "bool"), everyone)
    rewards = rewards._replace(value=numbers if chosen.has_critic else None)
    scores = prepare.Scores(
        numbers if chosen.needs_old else None,
        numbers if chosen.needs_reference else None,
        numbers,
    )
    ready = known.settings, rewards, scores, everyone
    batch, _ = jax.eval_shape(do.prepare, *ready, beta=known.beta)
    now = None
    if chosen.selects:
        found = jax.ShapeDtypeStruct((blocks, rows, columns), "float32")
        now = scoring.Scores(found, found)
    number = jax.ShapeDtypeStruct(shape[:1], "int32")
    ready = known.settings, batch, 0, now, number, jax.random.key(0), 0, share
    batch = jax.eval_shape(do.minibatch, *ready)
    return jax.tree.map(lambda x: _at(x, do.rows if x.ndim else do.everywhere), batch)


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
    columns = pool.widths(settings)[-1]
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
