"""Rules by path: every model's parameters on every mesh, and the same numbers there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from grpo_jax import scoring, sharding
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
    half = Numerics(compute="bfloat16", remat="full")
    shapes = (64, 128), (64, 2, 128)
    arrays = [jax.ShapeDtypeStruct(s, d) for s in shapes for d in (jnp.int32, bool)]

    def loss(params, question, is_question, completion, is_completion):
        texts = scoring.Texts(question, is_question, completion, is_completion)
        return scoring.log_probs(spec, params, texts, 1.0, half).logp.sum()

    for fsdp, model in MESHES:
        mesh = abstract_mesh(fsdp, model)
        layout, whole = sharding.of_params(params, mesh)
        rows = NamedSharding(mesh, P("fsdp"))
        placed = jax.jit(jax.grad(loss), in_shardings=(layout, *[rows] * 4))
        placed.trace(params, *arrays).lower(lowering_platforms=("tpu",))
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


@functools.partial(jax.jit, static_argnames="spec")
def scored(spec, params, texts):
    """The mean log-probability, and its gradient."""

    def mean(params):
        numerics = Numerics(chunk=16)
        return scoring.log_probs(spec, params, texts, 1.0, numerics).logp.mean()

    return jax.value_and_grad(mean)(params)


@functools.cache
def unsharded(name):
    spec = examples.SPECS[name]
    tokens = examples.tokens_of(4, 5), examples.tokens_of(4, 2, 6, seed=1)
    texts = scoring.Texts(tokens[0], tokens[0] >= 0, tokens[1], tokens[1] >= 0)
    return texts, scored(spec, examples.params_of(spec), texts)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("llama", (4, 1, 1)),
        ("llama", (2, 2, 1)),
        ("llama", (1, 2, 2)),
        ("llama", (1, 1, 4)),
        ("gemma3", (1, 2, 2)),
        ("qwen2", (1, 2, 2)),
    ],
)
def test_sharded_scores_and_their_gradients_are_the_same(name, shape):
    spec, params = examples.SPECS[name], examples.params_of(examples.SPECS[name])
    texts, expected = unsharded(name)
    mesh = sharding.mesh(*shape)
    layout, _ = sharding.of_params(params, mesh)
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    got = scored(spec, jax.device_put(params, layout), jax.device_put(texts, rows))
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)


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
