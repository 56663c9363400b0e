"""The decoder: shared prefixes, causality, caches, padding; values and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.section import Refused
from tests.models import examples

FAMILIES = sorted(examples.SPECS)
B, G, P, C = 2, 3, 6, 5


def close(actual, expected, tolerance):
    """Relative to the largest number of the array."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = max(float(jnp.abs(e).max()), 1e-3)
        np.testing.assert_allclose(a / scale, e / scale, rtol=0, atol=tolerance)


def empty_cache(spec, shape):
    """Room for [B, G, S] tokens."""
    *rows, columns = shape
    room = jnp.zeros((spec.layers, *rows, spec.kv_heads, columns, spec.head_size))
    room = jnp.swapaxes(room, -1, -2), room
    nothing = jnp.zeros(shape, int)
    return transformer.Segment(*room, nothing, nothing > 0)


def with_prefix(spec, params, question, completion, numerics):
    """Logits of the completions, the question computed once for its group."""
    at = jnp.broadcast_to(jnp.arange(P), (B, 1, P))
    everything = jnp.ones((B, 1, P), bool)
    _, segment = examples.forward(
        spec, params, question[:, None], at, everything, numerics=numerics
    )
    prefix = transformer.as_prefix(segment)
    at = jnp.broadcast_to(jnp.arange(P, P + C), (B, G, C))
    everything = jnp.ones((B, G, C), bool)
    hidden, _ = examples.forward(
        spec, params, completion, at, everything, prefix, numerics=numerics
    )
    return transformer.unembed(spec, params, hidden, numerics)


@pytest.mark.parametrize(
    ("family", "dtype", "tolerance"),
    [
        *((family, "float64", 1e-10) for family in FAMILIES),
        ("llama", "float32", 1e-5),
        ("gemma3", "float32", 1e-5),
    ],
)
def test_a_shared_prefix_equals_the_repeated_question(
    family, dtype, tolerance, float64
):
    spec, numerics = examples.SPECS[family], Numerics(compute=dtype)
    params = examples.params_of(spec, dtype)
    question, completion = examples.tokens_of(B, P), examples.tokens_of(B, G, C, seed=1)
    repeated = jnp.broadcast_to(question[:, None], (B, G, P))
    whole = jnp.concatenate([repeated, completion], -1)
    pull = jax.random.normal(jax.random.key(2), (B, G, C, spec.vocab), dtype)

    def shared(params):
        logits = with_prefix(spec, params, question, completion, numerics)
        return (logits * pull).sum(), logits

    def apart(params):
        logits = examples.plain(spec, params, whole, numerics)[:, :, P:]
        return (logits * pull).sum(), logits

    grads, logits = jax.jit(jax.grad(shared, has_aux=True))(params)
    expected, plain = jax.jit(jax.grad(apart, has_aux=True))(params)
    close(logits, plain, tolerance)
    close(grads, expected, tolerance)


@pytest.mark.parametrize("family", ["llama_linear", "gemma3"])
def test_no_gradient_comes_from_later_tokens(family):
    # every position has a row of the vocabulary to itself
    spec = dataclasses.replace(examples.SPECS[family], vocab=12)
    params, t = examples.params_of(spec), 6

    def at_t(embed):
        position = jnp.arange(12)[None, None]
        everything = jnp.ones((1, 1, 12), bool)
        hidden, _ = examples.forward(
            spec, params | {"embed": embed}, position, position, everything
        )
        return hidden[0, 0, t].sum()

    slope = jax.grad(at_t)(params["embed"])
    assert not np.any(slope[t + 1 :]) and np.all(np.any(slope[: t + 1], axis=-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_with_a_cache_equals_the_whole_forward_at_every_position(family):
    spec = examples.SPECS[family]
    params = examples.params_of(spec)
    tokens = examples.tokens_of(B, G, C)
    expected = examples.plain(spec, params, tokens)
    cache = empty_cache(spec, (B, G, 8))
    for t in range(C):
        one = tokens[:, :, t : t + 1]
        hidden, cache = examples.forward(
            spec, params, one, one * 0 + t, one == one, None, cache, t
        )
        logits = transformer.unembed(spec, params, hidden)[:, :, 0]
        close(logits, expected[:, :, t], 1e-5)


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)]
)
def test_neighbours_padding_and_width_change_nothing(family, dtype, tolerance, float64):
    spec, numerics = examples.SPECS[family], Numerics(compute=dtype)
    params = examples.params_of(spec, dtype)
    tokens = examples.tokens_of(4, 2, C)
    expected = examples.plain(spec, params, tokens, numerics)
    alone = examples.plain(spec, params, tokens[1:2, :1], numerics)
    close(alone, expected[1:2, :1], tolerance)
    for left, right in ((3, 0), (0, 4), (2, 9)):
        padded = jnp.pad(tokens, ((0, 0), (0, 0), (left, right)), constant_values=5)
        column = jnp.arange(left + C + right)
        is_token = (column >= left) & (column < left + C)
        is_token = jnp.broadcast_to(is_token, padded.shape)
        position = jnp.cumsum(is_token, -1) - 1
        hidden, _ = examples.forward(
            spec, params, padded, position, is_token, numerics=numerics
        )
        logits = transformer.unembed(spec, params, hidden, numerics)
        close(logits[:, :, left : left + C], expected, tolerance)
        assert np.all(np.isfinite(logits))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_shared_key_heads_are_repeated_key_heads(kv_heads, float64):
    spec = dataclasses.replace(examples.SPECS["qwen3"], kv_heads=kv_heads)
    params = examples.params_of(spec, "float64")
    full = dataclasses.replace(spec, kv_heads=4)
    layers = dict(params["layers"])
    for name in ("wk", "wv"):
        layers[name] = jnp.repeat(layers[name], 4 // kv_heads, axis=2)
    tokens = examples.tokens_of(B, G, C)
    expected = examples.plain(
        full, params | {"layers": layers}, tokens, examples.DOUBLE
    )
    close(examples.plain(spec, params, tokens, examples.DOUBLE), expected, 1e-12)


def test_remat_changes_neither_value_nor_gradient():
    spec = examples.SPECS["gemma3"]
    params, tokens = examples.params_of(spec), examples.tokens_of(B, G, C)

    def loss(params, remat):
        numerics = Numerics(remat=remat)
        return jax.nn.logsumexp(examples.plain(spec, params, tokens, numerics)).sum()

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    expected = both(params, "none")
    for remat in ("dots", "full"):
        close(both(params, remat), expected, 1e-6)
        kept = jax.make_jaxpr(jax.grad(loss), static_argnums=1)(params, remat)
        assert "remat" in str(kept)


def test_half_precision_stays_where_it_is_asked_for():
    spec = examples.SPECS["llama"]
    params, tokens = examples.params_of(spec), examples.tokens_of(B, G, C)
    exact = examples.plain(spec, params, tokens)
    half = Numerics(compute="bfloat16")
    logits = examples.plain(spec, params, tokens, half)
    assert logits.dtype == jnp.float32
    close(logits, exact, 0.03)
    for field in ("softmax", "norm", "logits"):
        lower = dataclasses.replace(half, **{field: "bfloat16"})
        other = examples.plain(spec, params, tokens, lower).astype(jnp.float32)
        assert np.any(other != logits)
        close(other, exact, 0.06)


def test_parameters_begin_small_and_have_readable_paths():
    from grpo_jax import tree

    spec = examples.SPECS["gemma3"]
    init = jax.jit(transformer.init, static_argnums=0)
    params = init(spec, jax.random.key(0))
    paths = set(jax.tree.leaves(tree.paths(params)))
    assert {"embed", "norm", "layers/wq", "layers/wd", "layers/q_norm"} <= paths
    shapes = jax.tree.map(lambda x: x.shape, params)
    assert shapes == jax.tree.map(lambda x: x.shape, transformer.abstract(spec))
    assert shapes["layers"]["wq"] == (3, 32, 4, 8) and shapes["layers"]["wo"][0] == 3
    std = params["layers"]["wq"].std()
    np.testing.assert_allclose(std, 32**-0.5, rtol=0.1)
    again = init(spec, jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, again))
    logits = examples.plain(spec, params, examples.tokens_of(B, G, C))
    assert jnp.abs(logits).max() < 3  # near uniform


def test_the_embeddings_gradient_of_a_frequent_token_is_summed_in_its_own_precision():
    spec = examples.SPECS["llama_linear"]
    params, half = examples.params_of(spec), Numerics(compute="bfloat16")
    tokens = jnp.zeros((64, 1, 32), int)

    def loss(embed, numerics):
        logits = examples.plain(spec, params | {"embed": embed}, tokens, numerics)
        return jax.nn.log_softmax(logits)[..., 1].sum()

    slope = jax.jit(jax.grad(loss), static_argnums=1)
    exact, got = slope(params["embed"], Numerics()), slope(params["embed"], half)
    np.testing.assert_allclose(
        got[0], exact[0], rtol=0, atol=0.03 * abs(exact[0]).max()
    )


def test_float64_is_refused_where_jax_would_compute_float32():
    spec = examples.SPECS["qwen3"]
    tokens = examples.tokens_of(1, 1, 3)
    for numerics in (examples.DOUBLE, Numerics(norm="float64")):
        with pytest.raises(Refused, match=r"asks for float64.*JAX_ENABLE_X64=1"):
            examples.plain(spec, examples.params_of(spec), tokens, numerics)


def test_float32_products_are_exact_wherever_they_run():
    """What accelerators round by default is asked for in full, forward and backward."""
    spec = examples.SPECS["gemma3"]
    params, tokens = examples.params_of(spec), examples.tokens_of(1, 2, 3)

    def products(numerics):
        def total(params):
            return examples.plain(spec, params, tokens, numerics).sum()

        program = str(jax.make_jaxpr(jax.grad(total))(params))
        return program.count("dot_general["), program.count("Precision.HIGHEST")

    every, exact = products(Numerics())
    assert every > 20 and exact == 2 * every  # of both its operands
    assert products(Numerics(products="default"))[1] == 0
