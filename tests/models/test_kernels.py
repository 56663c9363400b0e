"""Kernels of attention: the numbers of XLA's, whatever they are given, or a refusal."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import packing, scoring, sharding
from grpo_jax.models import attention, kernels, transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.section import Refused
from tests.models import examples
from tests.models.test_transformer import close, empty_cache

SPEC = examples.SPECS["qwen2"]  # two query heads for each key head
B, G = 4, 3


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    """Programs for CUDA are not even traced, so that float32 is served."""
    monkeypatch.setattr(kernels, "_has_cudnn", lambda: False)


def choose(name, **more):
    """Settings that cuDNN itself would refuse, but not what stands in for it here."""
    numerics = Numerics(**more)
    object.__setattr__(numerics, "attention", name)
    return numerics


def segments(spec, questions, columns, dtype="float32"):
    """Queries, keys and values at random, their masks, and which are tokens."""
    rng = np.random.default_rng(0)
    K, H = spec.kv_heads, spec.head_size
    rows, shared = (B, G), (B,)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    own = draw(*rows, K, H, columns), draw(*rows, K, columns, H)
    question = draw(*shared, K, H, questions), draw(*shared, K, questions, H)
    length = rng.integers(1, columns + 1, (*rows, 1))
    asked = rng.integers(0, questions + 1, (*shared, 1))
    is_token = np.arange(columns) < length
    is_question = np.arange(questions) >= questions - asked
    before = np.cumsum(is_question, -1) - 1
    position = np.broadcast_to(asked[:, None] + np.arange(columns), is_token.shape)
    seen = [(before, is_question), (position, is_token)]
    stored = [question, own]
    if not questions:
        seen, stored = seen[1:], stored[1:]
    seen = jax.tree.map(jnp.asarray, seen)
    masks = [attention.visible(spec, seen[-1][0], *of, None) for of in seen]
    masks = [near if spec.window else full for full, near in masks]
    q = draw(*rows, columns, spec.heads, H)
    return q, stored, masks, [is_token for _, is_token in seen]


def alone(spec, numerics, given):
    """What the tokens' queries see, and the gradient of a weighing of it."""
    q, stored, masks, is_token = given
    pull = jax.random.normal(jax.random.key(1), q.shape)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def weigh(given):
        if numerics.attention == "xla":
            out = attention.attend(spec, numerics, *given, masks)
        else:
            out = kernels.attend(spec, numerics, *given, masks, is_token)
        out = jnp.where(is_token[-1][..., None, None], out, 0)
        return (out * pull).sum(), out

    return weigh((q, stored))


SMALL, BLOCKS = (5, 7), (150, 140)


@pytest.mark.parametrize(
    ("name", "changes", "sizes"),
    [
        ("splash", {}, SMALL),
        ("splash", {"kv_heads": 1, "attention_scale": 0.5}, SMALL),
        ("splash", {"attention_softcap": 2.0}, SMALL),
        ("splash", {}, (0, 7)),
        ("splash", {}, BLOCKS),
        ("cudnn", {}, SMALL),
        ("cudnn", {"kv_heads": 1, "attention_scale": 0.5}, SMALL),
        ("cudnn", {"window": 3, "is_sliding": (True,) * 3}, SMALL),
        ("cudnn", {}, (0, 7)),
        ("cudnn", {}, BLOCKS),
    ],
)
def test_a_kernel_attends_as_xla_does(name, changes, sizes, monkeypatch):
    """Float32 sums in another order: 3e-6 at most when this was written."""
    monkeypatch.setattr(kernels, "LARGEST", 128)
    spec = dataclasses.replace(SPEC, **changes)
    given = segments(spec, *sizes)
    got, expected = (alone(spec, choose(x), given) for x in (name, "xla"))
    close(got, expected, 1e-5)


def test_cudnn_is_given_whole_tiles_of_keys_and_even_lengths(monkeypatch):
    shapes, attend = [], jax.nn.dot_product_attention

    def spy(*given, **more):
        shapes.append([x.shape for x in given if x is not None])
        return attend(*given, **more)

    monkeypatch.setattr(jax.nn, "dot_product_attention", spy)
    run = functools.partial(kernels.attend, SPEC, choose("cudnn"))
    out = jax.eval_shape(run, *segments(SPEC, 5, 7))
    keys = B * G, 128, 2, 8
    assert out.shape == (B, G, 7, 4, 8)
    assert shapes == [[(B * G, 8, 4, 8), keys, keys, (B * G, 1, 8, 128)]]


@pytest.mark.parametrize("name", ["splash", "cudnn"])
def test_in_bfloat16_a_kernel_is_as_near_to_float32_as_xla_is(name):
    given = segments(SPEC, *BLOCKS, "bfloat16")
    wide = jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, given
    )
    _, *exact = jax.tree.leaves(alone(SPEC, Numerics(), wide))  # without their sum

    def farthest(name):
        half = Numerics(compute="bfloat16", attention=name)
        _, *got = jax.tree.leaves(alone(SPEC, half, given))
        size = lambda x: jnp.linalg.norm(x.ravel())  # noqa: E731
        return max(size(x - y) / size(y) for x, y in zip(got, exact, strict=True))

    assert farthest(name) < 1.25 * farthest("xla") < 0.01


@functools.cache
def texts():
    """Questions of 3 to 6 tokens, completions of 1 to 5."""
    rng = np.random.default_rng(0)
    asked, length = np.array([[6], [4], [5], [3]]), rng.integers(1, 6, (B, G))
    given = scoring.Texts(
        question=examples.tokens_of(B, 6),
        is_question=np.arange(6) >= 6 - asked,
        completion=examples.tokens_of(B, G, 5, seed=1),
        is_completion=np.arange(5) < length[..., None],
    )
    return jax.tree.map(jnp.asarray, given)


def place():
    """In two lanes, two questions each."""
    length = np.array(texts().is_completion.sum(-1))
    return jnp.asarray(packing.lay(length, packing.Lanes(0, 2), 1, 1, 5, 8).place[0, 0])


@functools.partial(jax.jit, static_argnames=("spec", "numerics"))
def passes(spec, numerics, params, given, place=None):
    """Hidden states of tokens, and the gradient of a weighing of them."""
    starts = jnp.ones((B, G, 1), bool)
    is_token = jnp.concatenate([starts, given.is_completion[..., :-1]], -1)
    if place is not None:
        is_token = (place < packing.NOWHERE).reshape(-1, 1, place.shape[-1])

    def weigh(params):
        hidden = scoring.states(spec, params, given, numerics, place)
        hidden = jnp.where(is_token[..., None], hidden, 0)
        return (
            hidden * jax.random.normal(jax.random.key(1), hidden.shape)
        ).sum(), hidden

    return jax.value_and_grad(weigh, has_aux=True)(params)


@functools.cache
def by_xla(family, in_bins):
    given = examples.params_of(examples.SPECS[family]), texts()
    return passes(
        examples.SPECS[family], Numerics(), *given, place() if in_bins else None
    )


@pytest.mark.parametrize(
    ("name", "family", "in_bins"),
    [("splash", "qwen2", False), ("cudnn", "gemma3", True)],
)
def test_a_model_with_kernels_is_the_same_model(name, family, in_bins):
    """Questions are read by them as well. Float32: 3e-6 when this was written."""
    spec = examples.SPECS[family]
    given = examples.params_of(spec), texts(), place() if in_bins else None
    close(passes(spec, choose(name), *given), by_xla(family, in_bins), 1e-5)


@pytest.mark.parametrize(
    ("name", "shape"), [("splash", (1, 2, 2)), ("cudnn", (2, 1, 2))]
)
def test_a_mesh_changes_nothing(name, shape):
    mesh = sharding.mesh(*shape)
    params = examples.params_of(SPEC)
    layout, _ = sharding.of_params(params, mesh)
    params = jax.device_put(params, layout)
    given = jax.device_put(texts(), sharding.of_rows(mesh))
    run = jax.jit(sharding.on_mesh(functools.partial(passes, SPEC, choose(name)), mesh))
    got = run(params, given)
    close(jax.device_get(got), by_xla("qwen2", False), 1e-5)


@pytest.mark.parametrize("name", ["splash", "cudnn"])
@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ((4, 1, 1), (1, 4)),
        ((2, 2, 1), (1, 4)),
        ((1, 2, 2), (2, 2)),
        ((1, 1, 4), (4, 4)),  # 2 key heads are not cut in 4
    ],
)
def test_each_device_has_its_rows_and_heads(name, shape, share, monkeypatch):
    seen, kernel = [], getattr(kernels, f"_{name}")

    def spy(spec, numerics, q, *given):
        seen.append((q.shape[0], q.shape[3]))
        return kernel(spec, numerics, q, *given)

    monkeypatch.setattr(kernels, f"_{name}", spy)
    q, *given = segments(SPEC, *SMALL)
    attend = functools.partial(kernels.attend, SPEC, choose(name))
    attend = sharding.on_mesh(attend, sharding.mesh(*shape))
    assert jax.eval_shape(attend, q, *given).shape == q.shape
    three = jax.tree.map(lambda x: x[:3], (q, *given))
    assert jax.eval_shape(attend, *three).shape[0] == 3
    assert seen == [share, (3, share[1])]  # 3 questions are not cut in lanes


@pytest.mark.parametrize("name", ["splash", "cudnn"])
def test_what_is_decoded_with_a_cache_is_attended_to_by_xla(name):
    params = examples.params_of(SPEC)
    cache, token = empty_cache(SPEC, (B, G, 8)), jnp.zeros((B, G, 1), int)

    def program(name):
        run = functools.partial(transformer.forward, SPEC, numerics=choose(name))
        given = params, token, token, token == 0, None, cache
        return str(jax.make_jaxpr(run)(*given))

    assert program(name) == program("xla")


def products(numerics, dtype):
    """Of splash attention forward and backward, and the operands taken in full."""
    given = segments(SPEC, *SMALL, dtype)
    q, *others = given

    def total(q):
        return kernels.attend(SPEC, numerics, q, *others).astype(jnp.float32).sum()

    program = str(jax.make_jaxpr(jax.grad(total))(q))
    return program.count("dot_general["), program.count("Precision.HIGHEST")


def test_float32_products_of_splash_are_exact_forward_and_backward():
    every, exact = products(choose("splash"), "float32")
    assert every >= 9 and exact == 2 * every
    assert products(choose("splash", products="default"), "float32")[1] == 0
    assert products(choose("splash", compute="bfloat16"), "bfloat16")[1] == 0


def lowered(name, platform):
    """The text of a gradient's program for a platform that need not be here."""
    half = Numerics(compute="bfloat16", attention=name)
    given = examples.params_of(SPEC), texts()
    traced = passes.trace(SPEC, half, *given)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_the_platform_is_chosen_when_a_program_is_lowered():
    assert "tpu_custom_call" in lowered("splash", "tpu")
    assert "tpu_custom_call" not in lowered("splash", "cpu")
    assert "custom_call" not in lowered("cudnn", "tpu")
    with pytest.raises(NotImplementedError, match="not found for platform cuda"):
        lowered("cudnn", "cuda")  # where it is not installed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "cudnn"}, "compute in float32. Set .*compute to bfloat16"),
        ({"attention": "splash", "compute": "float64"}, "bfloat16 or float32"),
        ({"attention": "splash", "softmax": "float64"}, "softmax is float32"),
    ],
)
def test_a_precision_that_the_kernel_has_not_is_refused(settings, message):
    with pytest.raises(Refused, match=rf"^model.numerics.attention is .*{message}"):
        Numerics(**settings)


CAPPED = dataclasses.replace(SPEC, attention_softcap=50.0)
ODD = dataclasses.replace(SPEC, head_size=12)
WINDOW = examples.SPECS["gemma3"]


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("splash", WINDOW, "no sliding windows, and spec.window is 5"),
        ("cudnn", CAPPED, "no softcap, and spec.attention_softcap is 50.0"),
        ("cudnn", ODD, "and spec.head_size is 12"),
    ],
)
def test_a_model_that_the_kernel_does_not_serve_is_refused(name, spec, message):
    params, tokens = transformer.abstract(spec), jnp.zeros((1, 1, 3), int)
    run = functools.partial(transformer.forward, spec, numerics=choose(name))
    with pytest.raises(Refused, match=f"attention is '{name}'; .*{message}. Leave"):
        jax.eval_shape(run, params, tokens, tokens, tokens == 0)


def test_splash_serves_no_bins_and_says_so():
    params = transformer.abstract(SPEC)
    for name, serves in (("xla", True), ("cudnn", True), ("splash", False)):
        assert kernels.serves_bins(choose(name)) == serves
    run = functools.partial(scoring.states, SPEC, numerics=choose("splash"))
    with pytest.raises(Refused, match="cannot keep apart the rows of a bin"):
        jax.eval_shape(run, params, texts(), place=place())


def test_splash_does_not_run_where_integers_are_wide(float64):
    with pytest.raises(Refused, match="does not run under JAX_ENABLE_X64"):
        kernels.need_served(SPEC, choose("splash"), has_bins=False)
    kernels.need_served(SPEC, choose("cudnn"), has_bins=False)
