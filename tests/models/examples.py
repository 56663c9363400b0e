"""A small model of each family, with every option that the family has."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import programs
from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Rope, Spec

SHAPE = {"vocab": 97, "layers": 3, "width": 32, "ffw": 48, "heads": 4, "kv_heads": 2}
SHAPE |= {"head_size": 8, "max_length": 512}
LLAMA3 = Rope(theta=500.0, scaling="llama3", factor=8.0, original_length=64)
YARN = Rope(
    theta=1000.0,
    scaling="yarn",
    factor=8.0,
    original_length=64,
    attention_factor=float(0.1 * np.log(8) + 1),
)
LINEAR = Rope(theta=1e6, scaling="linear", factor=8.0)
GEMMA = {
    "family": "gemma3_text",
    "qk_norm": True,
    "post_norms": True,
    "norm_plus_one": True,
    "scaled_embedding": True,
    "activation": "gelu_tanh",
    "attention_scale": 24**-0.5,
    "rope": LINEAR,
    "local_rope": Rope(),
    "window": 5,
    "is_sliding": (True, False, True),
    "logit_softcap": 30.0,
}
SPECS = {
    "llama": Spec(**SHAPE, tied=False, rope=LLAMA3),
    "llama_linear": Spec(**SHAPE, rope=dataclasses.replace(LINEAR, theta=500.0)),
    "llama_biases": Spec(**SHAPE, qkv_bias=True, out_bias=True, mlp_bias=True),
    "mistral": Spec(**SHAPE, family="mistral", tied=False),
    "mistral_sliding": Spec(
        **SHAPE, family="mistral", tied=False, window=7, is_sliding=(True,) * 3
    ),
    "qwen2": Spec(**SHAPE, family="qwen2", qkv_bias=True, rope=YARN),
    "qwen3": Spec(**SHAPE, family="qwen3", qk_norm=True),
    "gemma3": Spec(**SHAPE, **GEMMA),
}
DOUBLE = Numerics(compute="float64")


@functools.cache
def params_of(spec, dtype="float32", seed=0):
    """Parameters with nothing at its initial 0 or 1."""
    shapes, structure = jax.tree.flatten(transformer.abstract(spec))
    rng = np.random.default_rng(seed)
    draws = [0.2 * rng.normal(size=x.shape) + (x.ndim < 3) for x in shapes]
    leaves = [jnp.asarray(x, dtype) for x in draws]
    params = jax.tree.unflatten(structure, leaves)
    return params | {"embed": params["embed"] - 1}


def published(spec, dtype="float32", seed=0):
    """The same, to sample with."""
    return programs.publish(params_of(spec, dtype, seed), dtype)


forward = jax.jit(transformer.forward, static_argnames=("spec", "numerics"))


@functools.partial(jax.jit, static_argnames=("spec", "numerics"))
def plain(spec, params, tokens, numerics=Numerics()):
    """Logits [B, G, T, V] of whole rows, the way nobody would sample or train."""
    position = jnp.broadcast_to(jnp.arange(tokens.shape[-1]), tokens.shape)
    everything = jnp.ones(tokens.shape, bool)
    hidden, _ = transformer.forward(
        spec, params, tokens, position, everything, numerics=numerics
    )
    return transformer.unembed(spec, params, hidden, numerics)


def tokens_of(*shape, seed=0, vocab=97):
    return jnp.asarray(np.random.default_rng(seed).integers(0, vocab, shape))
