"""What a device computes and sends, counted in programs that one can count by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from grpo_jax import config, learner, plan, sharding
from grpo_jax.bench import hlo
from grpo_jax.models.settings import Model, Numerics
from grpo_jax.section import Refused
from tests.models import examples


def counted(function, *shapes, specs=None):
    """On four devices in a row, with arguments that lie so."""
    mesh = sharding.mesh(1, 4, 1)
    where = [NamedSharding(mesh, spec) for spec in specs or [P()] * len(shapes)]
    given = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=at)
        for shape, at in zip(shapes, where, strict=True)
    ]
    options = {"out_shardings": where[0]}
    return hlo.count(jax.jit(function, **options).lower(*given).compile().as_text())


def test_a_product_is_two_operations_for_each_of_its_terms():
    rows = P("fsdp"), P()
    found = counted(jnp.matmul, (8, 5), (5, 7), specs=rows)
    assert found == (2 * 2 * 5 * 7, {})  # a quarter of the rows on each


def test_a_loop_counts_as_often_as_it_runs():
    def power(x, y):
        return jax.lax.fori_loop(0, 6, lambda _, x: x @ y, x)

    assert counted(power, (8, 5), (5, 5)).operations == 6 * 2 * 8 * 5 * 5


def test_what_is_sent_is_counted_by_its_kind():
    size = 40 * 50 * 4
    found = counted(jnp.matmul, (8, 40), (40, 50), specs=(P("fsdp"), P("fsdp")))
    assert found.sent == {"all-gather": size / 4 * 3}

    whole = jax.jit(lambda x: x.sum(0), out_shardings=NamedSharding(mesh(), P()))
    given = jax.ShapeDtypeStruct(
        (8, 40, 50), jnp.float32, sharding=NamedSharding(mesh(), P("fsdp"))
    )
    found = hlo.count(whole.lower(given).compile().as_text())
    assert found.sent == {"all-reduce": 2 * size * 3 / 4}


def test_a_permutation_sends_all():
    def turn(x):
        pairs = [(i, (i + 1) % 4) for i in range(4)]
        spec = P("fsdp")
        move = functools.partial(jax.lax.ppermute, axis_name="fsdp", perm=pairs)
        return jax.shard_map(move, mesh=mesh(), in_specs=spec, out_specs=spec)(x)

    found = counted(turn, (8, 40), specs=[P("fsdp")])
    assert found.sent == {"collective-permute": 2 * 40 * 4}


def mesh():
    return sharding.mesh(1, 4, 1)


@functools.cache
def update(devices):
    """A whole update, two questions on each device."""
    chosen = config.Config(
        model=Model(numerics=Numerics(chunk=16)),
        algorithm=config.Algorithm(group_size=4),
        sampling=config.Sampling(temperature=1.0),
    )
    on = sharding.mesh(1, devices, 1, jax.devices()[:devices])
    run = learner.make(examples.SPECS["qwen2"], chosen, 10, on)
    programs = dict(plan.learning(run, plan.Size(2 * devices, 8, 16)))
    return hlo.count(programs["update"].compile().as_text())


def test_no_device_of_a_mesh_computes_what_another_does():
    """A token costs the same on one as on four."""
    assert update(4).operations == pytest.approx(update(1).operations, rel=1e-3)
    assert update(1).sent == {} and set(update(4).sent) > {"all-gather"}


def test_a_program_that_cannot_be_counted_is_refused():
    text = (
        "ENTRY %main () -> f32[] {\n  %c = f32[2]{0} convolution(%a, %b), dim_labels=x"
    )
    with pytest.raises(Refused, match="has a convolution; it is not counted"):
        hlo.count(text)
    text = text.replace("convolution", "custom-call").replace("dim", '"__cublas$lt"')
    with pytest.raises(Refused, match="has a custom-call; it is not counted"):
        hlo.count(text)

    def until(x):
        return jax.lax.while_loop(lambda x: (x < 9).all(), lambda x: x @ x, x)

    with pytest.raises(Refused, match="how often a loop runs"):
        counted(until, (3, 3))
