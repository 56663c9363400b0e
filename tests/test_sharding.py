"""Rules by path: every model's parameters on every mesh, and the same numbers there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from grpo_jax import sharding
from grpo_jax.models import lora, settings, sizes, transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.section import Refused
from tests.models import examples

MESHES = [(8, 1), (4, 2), (2, 4), (64, 4)]


def abstract_mesh(fsdp, model):
    kinds = (AxisType.Auto,) * 3
    return AbstractMesh((1, fsdp, model), sharding.AXES, axis_types=kinds)


@pytest.mark.parametrize("name", sorted(sizes.SPECS))
def test_every_known_model_lowers_on_every_mesh(name):
    spec = sizes.SPECS[name]
    params = transformer.abstract(spec, "bfloat16")
    tokens = jax.ShapeDtypeStruct((64, 1, 128), jnp.int32)
    mask = jax.ShapeDtypeStruct((64, 1, 128), jnp.bool_)
    half = Numerics(compute="bfloat16", remat="full")

    def loss(params, tokens, position, is_token):
        hidden, _ = transformer.forward(
            spec, params, tokens, position, is_token, numerics=half
        )
        return hidden.astype(jnp.float32).sum()

    for fsdp, model in MESHES:
        mesh = abstract_mesh(fsdp, model)
        layout, whole = sharding.of_params(params, mesh)
        rows = NamedSharding(mesh, P("fsdp"))
        placed = jax.jit(loss, in_shardings=(layout, rows, rows, rows))
        placed.trace(params, tokens, tokens, mask).lower(lowering_platforms=("tpu",))
        for path, reason in whole.items():
            # only heads, and Gemma's one row more than the mesh divides
            assert "over model" in reason or path == "embed", (path, reason)


def test_what_cannot_be_cut_is_named_once_and_kept_whole():
    params = transformer.abstract(sizes.SPECS["qwen2.5-0.5b"])
    layout, whole = sharding.of_params(params, abstract_mesh(2, 4))
    assert whole["layers/wk"] == "axis 2, 2 over model = 4"
    assert whole["layers/wq"] == "axis 2, 14 over model = 4"
    assert layout["layers"]["wk"].spec == P(None, "fsdp", None, None)
    assert layout["layers"]["wd"].spec == P(None, "model", "fsdp")
    assert set(whole) == {
        f"layers/{x}" for x in ("wq", "wk", "wv", "wo", "bq", "bk", "bv")
    }


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 2, 1), (1, 2, 2), (1, 1, 4)])
def test_a_sharded_forward_equals_an_unsharded_one(name, shape):
    spec, params = examples.SPECS[name], examples.params_of(examples.SPECS[name])
    tokens = examples.tokens_of(4, 2, 6)
    expected = examples.plain(spec, params, tokens)
    mesh = sharding.mesh(*shape)
    layout, _ = sharding.of_params(params, mesh)
    params = jax.device_put(params, layout)
    tokens = jax.device_put(tokens, NamedSharding(mesh, P(("data", "fsdp"))))
    np.testing.assert_allclose(
        examples.plain(spec, params, tokens), expected, 1e-4, 1e-5
    )


def test_every_parameter_has_a_rule_adapters_and_heads_as_well():
    for spec in examples.SPECS.values():
        params = examples.params_of(spec)
        chosen = settings.Lora(rank=2)
        adapters = lora.init(params, chosen, jax.random.key(0))
        joined = lora.join(params, adapters, chosen)
        head = {"head": {"weight": jnp.zeros(32), "bias": jnp.zeros(())}}
        sharding.of_params(joined | head, sharding.mesh(1, 2, 2))


def test_what_has_no_rule_or_another_rank_is_refused():
    mesh = sharding.mesh(1, 2, 2)
    with pytest.raises(Refused, match="no rule matches layers/new"):
        sharding.of_params({"layers": {"new": jnp.zeros((2, 2))}}, mesh)
    with pytest.raises(Refused, match="layers/wq has 2 axes; its sharding rule has 4"):
        sharding.of_params({"layers": {"wq": jnp.zeros((2, 2))}}, mesh)
    with pytest.raises(Refused, match="3 × 1 × 1 = 3; there are 4 devices"):
        sharding.mesh(3, 1, 1)
